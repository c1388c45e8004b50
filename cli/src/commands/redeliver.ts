import { type DeliveryView, listDeliveries, redeliver } from "@plumule/protocol";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { printDone, shortId } from "../print.ts";
import { inLine } from "../terminal-text.ts";

/** How far back the beginning of an id is looked for: as many deliveries as one page holds. */
const LOOKED_AT = 200;
const WHOLE_ID = /^[0-9a-f-]{36}$/;

/** `plumule redeliver`: handles a webhook again, with the rules of now. */
export function redeliverCommand(): Command {
  return new Command("redeliver")
    .summary("handle a webhook that came in again, with the rules of now")
    .argument("<delivery>", "its id, or how it begins: plumule ls deliveries")
    .action(act(again));
}

async function again({ terminal, connect }: Context, named: string): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const delivery = await findDelivery(connection, named.toLowerCase());
  if (isFailure(delivery)) return delivery;
  const answer = await connection.ask(redeliver, { params: { ns: connection.ns, delivery } });
  if (isFailure(answer)) return answer;
  const line = `delivery ${shortId(delivery)} handled again: ${outcomeOf(answer.body)}`;
  printDone(terminal, { line, next: "plumule ls deliveries", id: delivery, answer: answer.body });
  return EXIT.ok;
}

async function findDelivery(connection: Connection, named: string): Promise<string | Failure> {
  if (WHOLE_ID.test(named)) return named;
  const answer = await connection.ask(listDeliveries, { params: { ns: connection.ns }, query: { limit: LOOKED_AT } });
  if (isFailure(answer)) return answer;
  const [found, ...others] = answer.body.items.map(({ id }) => id).filter((id) => id.startsWith(named));
  const next = "plumule ls deliveries";
  if (found === undefined)
    return { exit: EXIT.notFound, what: `none of the last ${LOOKED_AT} deliveries begins with ${inLine(named)}`, next };
  if (others.length > 0)
    return { exit: EXIT.usage, what: `${others.length + 1} deliveries begin with ${inLine(named)}`, next };
  return found;
}

function outcomeOf({ state, results }: DeliveryView): string {
  const jobs = results.flatMap(({ job }) => (job === null ? [] : [shortId(job)]));
  if (jobs.length > 0) return `job ${jobs.join(", ")}`;
  return inLine(results.map(({ trigger, detail }) => `${trigger}: ${detail}`).join("; ") || state);
}
