/**
 * Scripts that write a committed file. Each, called with `--check`, writes nothing and exits non-zero if its
 * file is not what it would write now. `npm run check` runs them all; add a new one here and nowhere else.
 *
 * @type {readonly string[]} paths relative to the repository's root
 */
export const generators = [
  "scripts/protocol-fixtures.mjs",
  "scripts/protocol-docs.mjs",
  "scripts/task-file-schema.mjs",
];
