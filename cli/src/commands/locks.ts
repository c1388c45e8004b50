import { LIMITS, listLocks, type LockView } from "@plumule/protocol";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { wholeNumber } from "../flags.ts";
import { ageOf, paint, shortId, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";

/** `plumule locks`: who has which lock, and who waits for it. */
export function locksCommand(): Command {
  return new Command("locks")
    .summary("list locks: who has them, and who waits")
    .description(
      "Lists the locks that jobs have or wait for. A job gives its locks back when it ends; one that ended unknown keeps them until `plumule resolve`.",
    )
    .option("--limit <count>", `at most so many, up to ${LIMITS.listPage}`, wholeNumber(1), 50)
    .action(act(list));
}

async function list({ terminal, connect }: Context, { limit }: { limit: number }): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const query = { limit: Math.min(limit, LIMITS.listPage) };
  const answer = await connection.ask(listLocks, { params: { ns: connection.ns }, query });
  if (isFailure(answer)) return answer;
  const { items, nextCursor } = answer.body;
  if (terminal.json) for (const item of items) terminal.data(item);
  else if (items.length === 0)
    terminal.note(`no job has a lock  ${paint.quiet("→ plumule submit DEPLOYMENT --lock NAME …")}`);
  else for (const line of lockTable(items, Date.now())) terminal.out(line);
  if (nextCursor !== null) terminal.note(paint.quiet(`there are more: --limit up to ${LIMITS.listPage}`));
  return EXIT.ok;
}

/** Locks as a table. */
export function lockTable(locks: readonly LockView[], now: number): string[] {
  const rows = locks.map(({ name, holder, waiting, waitingCount }) => [
    paint.strong(inLine(name)),
    holder === null ? paint.quiet("kept for the first who waits") : partyText(holder),
    holder === null ? "" : holder.state === "unknown" ? paint.bad("unknown") : inLine(holder.state ?? ""),
    holder === null ? "" : ageOf(holder.since, now),
    waitingCount === 0
      ? ""
      : `${waiting.slice(0, 3).map(partyText).join(", ")}${waitingCount > 3 ? ` and ${waitingCount - 3} more` : ""}`,
  ]);
  return tableLines(["LOCK", "HELD BY", "STATE", "SINCE", "WAITING"], rows);
}

function partyText({ deployment, job }: { deployment: string; job: string }): string {
  return `${shortId(job)} in ${inLine(deployment)}`;
}
