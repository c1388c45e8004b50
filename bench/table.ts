/** A table: the first row is its head. Cells are text. */
export type Table = readonly (readonly string[])[];

/** A table for a terminal, columns aligned by spaces. */
export function plainTable(table: Table): string {
  return padded(table)
    .map((row) => row.join("  ").trimEnd())
    .join("\n");
}

/** A table in Markdown. */
export function markdownTable(table: Table): string {
  const [head = [], ...rows] = padded(table).map((row) => `| ${row.join(" | ")} |`);
  const rule = `|${widthsOf(table)
    .map((width) => "-".repeat(width + 2))
    .join("|")}|`;
  return [head, rule, ...rows].join("\n");
}

function padded(table: Table): string[][] {
  const widths = widthsOf(table);
  return table.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)));
}

function widthsOf(table: Table): number[] {
  return (table[0] ?? []).map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
}
