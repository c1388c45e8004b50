import type { DeploymentId, DeploymentView, JobId, JobState, JobView } from "@plumule/protocol";

/**
 * Rows that one page walks while it looks for jobs in a state. There is no index by state, which every change of a job would have to pay
 * for; a page that finds too few jobs ends here, and its cursor goes on from there.
 */
const WALK_ROWS = 10_000;

/** How much of a deployment's history the index has seen. A deployment that was removed and made anew begins again. */
export type SeenDeployment = { createdAt: string; through: number };

/** What the index has seen of a deployment, or null. */
export function findSeen(sql: SqlStorage, deployment: DeploymentId): SeenDeployment | null {
  const [row] = sql
    .exec<{ created_at: string; through: number }>(
      "SELECT created_at, through FROM deployments WHERE id = ?",
      deployment,
    )
    .toArray();
  return row === undefined ? null : { createdAt: row.created_at, through: row.through };
}

/** Stores a deployment as it is after the event `through`. A removed one stays hidden for a while, so that a late batch changes nothing. */
export function saveDeployment(sql: SqlStorage, view: DeploymentView, through: number, removed: boolean): void {
  sql.exec(
    "INSERT OR REPLACE INTO deployments (id, state, created_at, updated_at, through, removed, view) VALUES (?, ?, ?, ?, ?, ?, ?)",
    view.id,
    view.state,
    view.createdAt,
    view.updatedAt,
    through,
    removed ? 1 : 0,
    JSON.stringify(view),
  );
}

/** Stores a job as it is now. */
export function saveJob(sql: SqlStorage, view: JobView): void {
  sql.exec(
    `INSERT INTO jobs (id, deployment, commit_id, state, view) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET state = excluded.state, view = excluded.view`,
    view.id,
    view.deployment,
    view.source?.commit ?? null,
    view.state,
    JSON.stringify(view),
  );
}

/** A job as it is listed, or null. */
export function findJob(sql: SqlStorage, job: JobId): JobView | null {
  const [row] = sql.exec<{ view: string }>("SELECT view FROM jobs WHERE id = ?", job).toArray();
  return row === undefined ? null : (JSON.parse(row.view) as JobView);
}

/** The jobs that the task file of a job became, in their order. */
export function readSteps(sql: SqlStorage, { id, deployment, stepCount = 0 }: JobView): JobView[] {
  return viewsOf<JobView>(
    sql.exec<{ view: string }>(
      "SELECT view FROM jobs WHERE deployment = ? AND id > ? AND view ->> '$.step.parent' = ? ORDER BY id LIMIT ?",
      deployment,
      id,
      id,
      stepCount,
    ),
  );
}

/** The deployment of a job, or null while the job is not in the index. */
export function findDeploymentOfJob(sql: SqlStorage, job: JobId): DeploymentId | null {
  const [row] = sql.exec<{ deployment: string }>("SELECT deployment FROM jobs WHERE id = ?", job).toArray();
  return row?.deployment ?? null;
}

/** Deployments by id, after one of them. */
export function readDeployments(
  sql: SqlStorage,
  query: { state: string | null; prefix: string | null; after: DeploymentId | null; limit: number },
): DeploymentView[] {
  const prefix = query.prefix ?? "";
  return viewsOf<DeploymentView>(
    sql.exec<{ view: string }>(
      "SELECT view FROM deployments WHERE id > ? AND id >= ? AND id < ? AND removed = 0 AND (? IS NULL OR state = ?) ORDER BY id LIMIT ?",
      // Ids are ASCII, so DEL stands behind every id that begins with the prefix.
      query.after ?? "",
      prefix,
      `${prefix}\u007f`,
      query.state,
      query.state,
      query.limit,
    ),
  );
}

/** The deployments that changed last, newest first. */
export function readNewestDeployments(sql: SqlStorage, limit: number): DeploymentView[] {
  return viewsOf<DeploymentView>(
    sql.exec<{ view: string }>(
      "SELECT view FROM deployments WHERE removed = 0 ORDER BY updated_at DESC, id LIMIT ?",
      limit,
    ),
  );
}

/** A part of the list of jobs. `walkedTo`: the page ended because it walked far enough, and goes on below this job. */
export type JobsFound = { jobs: JobView[]; walkedTo: JobId | null };

/** Jobs, newest first, before one of them. */
export function readJobs(
  sql: SqlStorage,
  query: {
    state: JobState | null;
    deployment: DeploymentId | null;
    commit: string | null;
    before: JobId | null;
    limit: number;
  },
): JobsFound {
  const conditions = ["id < ?"];
  const values: string[] = [query.before ?? "~"];
  if (query.deployment !== null) {
    conditions.push("deployment = ?");
    values.push(query.deployment);
  }
  if (query.commit !== null) {
    conditions.push("commit_id = ?");
    values.push(query.commit);
  }
  const walk = `FROM jobs WHERE ${conditions.join(" AND ")} ORDER BY id DESC LIMIT`;
  if (query.state === null)
    return {
      jobs: viewsOf<JobView>(sql.exec<{ view: string }>(`SELECT view ${walk} ?`, ...values, query.limit)),
      walkedTo: null,
    };
  const jobs = viewsOf<JobView>(
    sql.exec<{ view: string }>(
      `SELECT view FROM (SELECT state, view ${walk} ?) WHERE state = ? LIMIT ?`,
      ...values,
      WALK_ROWS,
      query.state,
      query.limit,
    ),
  );
  const [last] =
    jobs.length < query.limit
      ? sql.exec<{ id: string }>(`SELECT id ${walk} 1 OFFSET ?`, ...values, WALK_ROWS - 1).toArray()
      : [];
  return { jobs, walkedTo: last?.id ?? null };
}

function viewsOf<T>(rows: SqlStorageCursor<{ view: string }>): T[] {
  return rows.toArray().map(({ view }) => JSON.parse(view) as T);
}

/** The deployments in which a job holds a lease, as far as the index knows. Walks all jobs: for what is rare. */
export function readBusyDeployments(sql: SqlStorage): DeploymentId[] {
  return sql
    .exec<{ deployment: string }>(
      "SELECT DISTINCT deployment FROM jobs WHERE state IN ('assigned', 'running', 'cancelling')",
    )
    .toArray()
    .map(({ deployment }) => deployment);
}
