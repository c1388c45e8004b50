import {
  isRefusal,
  toBase64,
  toHex,
  utf8,
  type Assignment,
  type PoolName,
  type RunnerId,
  type Waiting,
} from "@plumule/protocol";
import type { PoolCalls, Reservation, Ticket } from "../pool/calls.ts";
import { within } from "../shared/within.ts";
import type { LeaseOffer } from "./core/model.ts";
import type { Dispatch } from "./core/tickets.ts";

/** A pool that does not answer within this is as good as gone, ms: a call that dangles would keep the object in memory. */
const CALL_MS = 5_000;

/** A runner set aside, with a lease that it may be given. */
export type Reserved = { pool: PoolName; reservation: Reservation; lease: LeaseOffer };

/** What became of a message. A pool that is full or cannot be reached gets it again later. */
export type Answered = { delivered: boolean; waiting: Waiting | null };

/** The pools as a deployment uses them: a pool that cannot be reached is an answer, not an exception. */
export type Pools = {
  /** Sets a runner aside for a ticket and mints a lease for it; null when there is none. */
  reserve(pool: PoolName, ticket: Ticket): Promise<Reserved | null>;
  release(reserved: Reserved): Promise<void>;
  /** Fills the reserved poll. When that fails nothing is done: the acknowledgement deadline sends the job back. */
  deliver(reserved: Reserved, assignment: Assignment): Promise<void>;
  /** Sends a ticket or takes it out. */
  send(dispatch: Dispatch, deployment: string): Promise<Answered>;
  /** Why a job waits, as its pool sees it now. */
  explain(pool: PoolName, job: string): Promise<Waiting | null>;
};

/** Reaches pools by name. */
export function createPools(poolNamed: (pool: PoolName) => PoolCalls): Pools {
  const unsent: Answered = { delivered: false, waiting: null };
  return {
    async reserve(pool, ticket) {
      const reservation = await attempt(() => poolNamed(pool).reserve({ ticket }), null);
      return reservation === null
        ? null
        : { pool, reservation, lease: await mintLease(reservation.runner, reservation.requestKey) };
    },
    release: ({ pool, reservation }) =>
      attempt(() => poolNamed(pool).release({ reservation: reservation.id }), undefined),
    async deliver({ pool, reservation }, assignment) {
      await attempt(
        () => poolNamed(pool).deliver({ reservation: reservation.id, runner: reservation.runner, assignment }),
        false,
      );
    },
    send(dispatch, deployment) {
      const pool = poolNamed(dispatch.pool);
      return attempt<Answered>(async () => {
        if (dispatch.kind === "put") {
          const waiting = await pool.put({ ticket: dispatch.ticket });
          return isRefusal(waiting) ? unsent : { delivered: true, waiting };
        }
        await pool.drop({ deployment, job: dispatch.job, number: dispatch.number });
        return { delivered: true, waiting: null };
      }, unsent);
    },
    explain: (pool, job) => attempt(() => poolNamed(pool).explain(job), null),
  };
}

/** A new lease: 32 random bytes as the token, of which the object keeps the digest. */
export async function mintLease(runner: RunnerId, requestKey: string): Promise<LeaseOffer> {
  const leaseToken = mintToken();
  return { runner, requestKey, leaseToken, leaseSha256: await digestToken(leaseToken) };
}

/** 32 random bytes, as a URL may hold them. */
export function mintToken(): string {
  const bytes = toBase64(crypto.getRandomValues(new Uint8Array(32)));
  return bytes.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** SHA-256 (hex) of a lease token. */
export async function digestToken(leaseToken: string): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8(leaseToken))));
}

async function attempt<T>(call: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await within(CALL_MS, call());
  } catch {
    return otherwise;
  }
}
