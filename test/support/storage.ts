import { globSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** The database of one object, in the folder of a broker that has stopped. */
export type Stored = { kind: "deployment" | "pool" | "namespace"; file: string };

/** Databases of every object that the broker `name` of `startWorkers` has kept. */
export function databasesOf(stateDir: string, name: string): Stored[] {
  return globSync(join(stateDir, "do", `${name}-*`, "*.sqlite"))
    .filter((file) => basename(file) !== "metadata.sqlite")
    .map((file) => ({
      kind: basename(dirname(file))
        .slice(name.length + 1)
        .toLowerCase() as Stored["kind"],
      file,
    }));
}

/** Opens a database, does something with it, and closes it. */
export function withDatabase<T>(file: string, use: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(file, { readBigInts: true });
  try {
    return use(database);
  } finally {
    database.close();
  }
}

/** Everything that an object has stored, as SQL: its tables and indexes, then its rows in order. What the platform keeps beside them is left out. */
export function dumpOf(file: string): string {
  return withDatabase(file, (database) => {
    const schema = database
      .prepare(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%' ORDER BY rowid",
      )
      .all() as { type: string; name: string; sql: string }[];
    const rows = schema
      .filter(({ type }) => type === "table")
      .flatMap(({ name }) => {
        const columns = database.prepare(`SELECT name FROM pragma_table_info('${name}')`).all() as { name: string }[];
        const values = columns.map((column) => `quote("${column.name}")`).join(" || ', ' || ");
        return (database.prepare(`SELECT ${values} AS row FROM "${name}" ORDER BY 1`).all() as { row: string }[]).map(
          ({ row }) => `INSERT INTO "${name}" VALUES (${row});`,
        );
      });
    return [...schema.map(({ sql }) => `${sql};`), ...rows, ""].join("\n");
  });
}

/** When the objects of one class of a broker wake up next, ms. The folder may be in use. */
export function alarmsOf(stateDir: string, name: string, kind: "Deployment" | "Pool" | "Namespace"): number[] {
  return withDatabase(join(stateDir, "do", `${name}-${kind}`, "metadata.sqlite"), (database) =>
    (database.prepare("SELECT scheduled_time AS at FROM _cf_ALARM").all() as { at: bigint }[]).map(({ at }) =>
      Number(at / 1_000_000n),
    ),
  );
}
