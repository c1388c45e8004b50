import {
  type DrainBody,
  drainRunner,
  listRunners,
  type RunnerId,
  type RunnerView,
  undrainRunner,
} from "@plumule/protocol";
import type { Connection } from "../connection.ts";
import type { Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { ageOf, clockOf, paint, printDone, shortKey, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import type { Listed } from "./ls.ts";

/** The fleet as a list. */
export async function fleet(connection: Connection, { limit }: { limit: number }): Promise<Listed | Failure> {
  const answer = await connection.ask(listRunners, { params: { ns: connection.ns }, query: { limit } });
  if (isFailure(answer)) return answer;
  const { items, nextCursor } = answer.body;
  const lines = runnerTable(items, Date.now());
  return { items, lines, more: nextCursor !== null, empty: "no runner is registered", next: "plumule runner token" };
}

/** Runners as a table. */
export function runnerTable(items: readonly RunnerView[], now: number): string[] {
  const rows = items.map((runner) => [
    paint.strong(inLine(runner.name)),
    standing(runner, now),
    runner.offer === null ? "" : `${runner.busy}/${runner.offer.capacity}`,
    inLine(runner.offer?.systems.join(",") ?? ""),
    runner.offer?.isolation ?? "",
    runner.seenAt === null ? "never" : ageOf(runner.seenAt, now),
    paint.quiet(shortKey(runner.id)),
  ]);
  return tableLines(["RUNNER", "STATE", "BUSY", "SYSTEMS", "ISOLATION", "SEEN", "KEY"], rows);
}

function standing({ state, drained, drain, revoked }: RunnerView, now: number): string {
  if (revoked) return paint.bad("revoked");
  if (drained) {
    const words = ["drained", ...(state === "online" ? [] : ["offline"])];
    if (drain?.deadlineAt != null) {
      const leftMs = Date.parse(drain.deadlineAt) - now;
      words.push(leftMs > 0 ? `runs end in ${clockOf(leftMs)}` : "its time is over");
    }
    if (drain?.end === "exit") words.push("then leaves");
    return paint.care(`${words.join(", ")}${drain?.note == null ? "" : `: ${inLine(drain.note)}`}`);
  }
  return state === "online" ? paint.good("online") : paint.quiet("offline");
}

/** Gives a runner no new work, or work again (null). */
export async function setDrained(
  { terminal, connect }: Context,
  which: string,
  how: DrainBody | null,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const runner = await findRunner(connection, which);
  if (isFailure(runner)) return runner;
  const params = { ns: connection.ns, runner };
  const answer = await (how === null
    ? connection.ask(undrainRunner, { params })
    : connection.ask(drainRunner, { params, body: how }));
  if (isFailure(answer)) return answer;
  const { name, busy } = answer.body;
  const line = how !== null ? `${inLine(name)} gets no new work, ${busy} running` : `${inLine(name)} gets work again`;
  const next = how !== null ? `plumule runner undrain ${inLine(name)}` : "plumule runner ls";
  printDone(terminal, { line, next, id: runner, answer: answer.body });
  return EXIT.ok;
}

/** The runner that a name, a did:key or the beginning of its key means. */
export async function findRunner(connection: Connection, which: string): Promise<RunnerId | Failure> {
  const answer = await connection.ask(listRunners, { params: { ns: connection.ns }, query: { limit: 200 } });
  if (isFailure(answer)) return answer;
  const found = answer.body.items.filter(
    ({ id, name }) =>
      id === which || name === which || (which.length >= 8 && id.slice("did:key:".length).startsWith(which)),
  );
  const [runner, second] = found;
  if (runner === undefined)
    return { exit: EXIT.notFound, what: `No runner is called ${which}`, next: "See them: `plumule runner ls`." };
  if (second !== undefined)
    return misuse(
      `${found.length} runners are called ${which}`,
      "Give the key.",
      found.map(({ id, name }) => ({ pointer: name, detail: id })),
    );
  return runner.id;
}
