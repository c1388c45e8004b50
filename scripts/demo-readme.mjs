// Runs the demo and puts what it printed into the README, between the marks `demo:begin` and `demo:end`.
// Every run has other times and ids, so nothing compares the two; run it when what the demo prints has changed. It is what one sees without Radicle,
// whose folders are taken from PATH.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { projectEnvironment, root } from "./child-process.mjs";

const readme = join(root, "README.md");
const marks = /(<!-- demo:begin -->\n)[\s\S]*?(<!-- demo:end -->)/;

const env = projectEnvironment();
const path = (env.PATH ?? "").split(delimiter).filter((folder) => !existsSync(join(folder, "rad")));
const printed = execFileSync("node", ["cli/src/main.ts", "demo"], {
  cwd: root,
  env: { ...env, PATH: path.join(delimiter), NO_COLOR: "1" },
  encoding: "utf8",
});
const text = readFileSync(readme, "utf8");
if (!marks.test(text)) throw new Error("README.md has no marks demo:begin and demo:end");
writeFileSync(
  readme,
  text.replace(marks, (_, begin, end) => `${begin}\n\`\`\`text\n${printed}\`\`\`\n\n${end}`),
);
