import type { Assignment, ExecCall } from "@plumule/protocol";
import type { Poll } from "./core/fleet.ts";

type Waiter = {
  answer: (answer: Assignment | ExecCall | null) => void;
  hold: ReturnType<typeof setTimeout>;
  repeat: ReturnType<typeof setInterval> | null;
};

/** The requests behind the parked polls, and their timers. No timer outlives its poll: one that did would keep the object in memory. */
export class Parking {
  readonly #waiters = new Map<Poll, Waiter>();

  /** Holds a request, and calls `ended` after `waitMs`. One that waits for the same poll is answered with null: its client has sent it again. */
  hold(poll: Poll, waitMs: number, ended: () => void): Promise<Assignment | ExecCall | null> {
    this.answer(poll, null);
    return new Promise((answer) => {
      this.#waiters.set(poll, { answer, hold: setTimeout(ended, waitMs), repeat: null });
    });
  }

  /** Answers the request of a poll, if it still waits. */
  answer(poll: Poll, answer: Assignment | ExecCall | null): void {
    const waiter = this.#waiters.get(poll);
    if (waiter === undefined) return;
    this.#waiters.delete(poll);
    clearTimeout(waiter.hold);
    if (waiter.repeat !== null) clearInterval(waiter.repeat);
    waiter.answer(answer);
  }

  /** Does something again and again as long as the poll waits. */
  repeat(poll: Poll, everyMs: number, work: () => void): void {
    const waiter = this.#waiters.get(poll);
    if (waiter !== undefined) waiter.repeat ??= setInterval(work, everyMs);
  }
}
