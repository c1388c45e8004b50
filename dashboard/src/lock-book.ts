import { call, getJob, type JobId, type JobView, type Waiting } from "@plumule/protocol";
import type { Session } from "./session.ts";

/** Jobs that wait for a lock, with who is in their way as far as this reader may know: events do not say it, because others read them too. */
export type LockBook = { of(job: JobView): JobView };

/** Asks who is in the way of a job that is shown whenever that may have changed; `changed` is called with every answer. */
export function createLockBook(session: Session, signal: AbortSignal, changed: () => void): LockBook {
  const known = new Map<JobId, { key: string; waiting: Waiting | null }>();
  const learn = async (id: JobId, key: string): Promise<void> => {
    known.set(id, { key, waiting: null });
    const answer = await call(session.client, getJob, { params: { ns: session.ns, job: id }, signal });
    if (!answer.ok) return;
    known.set(id, { key, waiting: answer.answer.body.job.waiting });
    changed();
  };
  return {
    of(job) {
      const { waiting } = job;
      if (waiting?.lock === undefined) return job;
      const key = waiting.detail;
      const entry = known.get(job.id);
      if (entry?.key !== key) learn(job.id, key).catch(() => known.delete(job.id));
      return entry?.key === key && entry.waiting?.lock !== undefined ? { ...job, waiting: entry.waiting } : job;
    },
  };
}
