import {
  type DeliveryView,
  type DeploymentId,
  formatTime,
  type JobId,
  type Millis,
  type Push,
} from "@plumule/protocol";

/** What a rule made of a delivery. `pending`: the job was not handed over yet. */
export type DeliveryResult = {
  trigger: string;
  deployment: DeploymentId | null;
  job: JobId | null;
  detail: string;
  pending: boolean;
};

/** A webhook that was verified. `push` is null when it said nothing that a rule could match; `round` counts redeliveries. */
export type Delivery = {
  id: string;
  hook: string;
  signer: string;
  webhookId: string;
  bodySha256: string;
  receivedAt: Millis;
  type: string;
  push: Push | null;
  pushKey: string | null;
  state: DeliveryView["state"];
  round: number;
  results: readonly DeliveryResult[];
};

type Row = {
  number: number;
  id: string;
  hook: string;
  signer: string;
  webhook_id: string;
  body_sha256: string;
  received_at: Millis;
  type: string;
  push: string | null;
  push_key: string | null;
  state: DeliveryView["state"];
  round: number;
  results: string;
};

/** Reads one delivery, or null. */
export function findDelivery(sql: SqlStorage, id: string): Delivery | null {
  const [row] = sql.exec<Row>("SELECT * FROM deliveries WHERE id = ?", id).toArray();
  return row === undefined ? null : deliveryOf(row);
}

/** Deliveries with their numbers, newest first, before one of them. */
export function readDeliveries(
  sql: SqlStorage,
  before: number | null,
  limit: number,
): { number: number; delivery: Delivery }[] {
  return sql
    .exec<Row>(
      "SELECT * FROM deliveries WHERE number < ? ORDER BY number DESC LIMIT ?",
      before ?? Number.MAX_SAFE_INTEGER,
      limit,
    )
    .toArray()
    .map((row) => ({ number: row.number, delivery: deliveryOf(row) }));
}

/**
 * The delivery that brought the same push before, or null. A ref that has moved on to `beforeKey` since, and now comes back, is another
 * push. One that failed does not count: the next copy may do better.
 */
export function findSamePush(sql: SqlStorage, pushKey: string, beforeKey: string | null, since: Millis): string | null {
  const [same] = sql
    .exec<{ number: number; id: string }>(
      "SELECT number, id FROM deliveries WHERE push_key = ? AND received_at >= ? AND state NOT IN ('duplicate', 'failed') ORDER BY number DESC LIMIT 1",
      pushKey,
      since,
    )
    .toArray();
  if (same === undefined) return null;
  const moved = sql
    .exec("SELECT 1 FROM deliveries WHERE push_key = ? AND number > ? LIMIT 1", beforeKey, same.number)
    .toArray();
  return moved.length > 0 ? null : same.id;
}

/** Stores a new delivery. */
export function insertDelivery(sql: SqlStorage, delivery: Delivery): void {
  sql.exec(
    `INSERT INTO deliveries (id, hook, signer, webhook_id, body_sha256, received_at, type, push, push_key, state, round, results)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    delivery.id,
    delivery.hook,
    delivery.signer,
    delivery.webhookId,
    delivery.bodySha256,
    delivery.receivedAt,
    delivery.type,
    delivery.push === null ? null : JSON.stringify(delivery.push),
    delivery.pushKey,
    delivery.state,
    delivery.round,
    JSON.stringify(delivery.results),
  );
}

/** Stores what became of a delivery. */
export function updateDelivery(sql: SqlStorage, { id, state, round, results }: Delivery): void {
  sql.exec(
    "UPDATE deliveries SET state = ?, round = ?, results = ? WHERE id = ?",
    state,
    round,
    JSON.stringify(results),
    id,
  );
}

/** A delivery as people see it. */
export function deliveryView(delivery: Delivery): DeliveryView {
  const { push } = delivery;
  return {
    id: delivery.id,
    webhookId: delivery.webhookId,
    hook: delivery.hook,
    signer: delivery.signer,
    receivedAt: formatTime(delivery.receivedAt),
    type: delivery.type,
    repository: push?.repository ?? null,
    ref: push?.ref ?? null,
    after: push?.after ?? null,
    state: delivery.state,
    results: delivery.results.map(({ trigger, deployment, job, detail }) => ({ trigger, deployment, job, detail })),
  };
}

function deliveryOf(row: Row): Delivery {
  return {
    id: row.id,
    hook: row.hook,
    signer: row.signer,
    webhookId: row.webhook_id,
    bodySha256: row.body_sha256,
    receivedAt: row.received_at,
    type: row.type,
    push: row.push === null ? null : (JSON.parse(row.push) as Push),
    pushKey: row.push_key,
    state: row.state,
    round: row.round,
    results: JSON.parse(row.results) as DeliveryResult[],
  };
}
