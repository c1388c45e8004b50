import { sha256Hex, utf8 } from "./bytes.ts";
import type { SubmitBody } from "./submit.ts";

/** What makes two jobs the same work: the same task, with the same configuration, on the same commit of the same repository. */
export type JobWork = {
  /** As the source of the job names it, for Radicle `rad:z…`. */
  repository: string;
  commit: string;
  taskSha256: string;
  configurationSha256: string | null;
};

/** What the digest begins with, so that it is that of nothing else. */
const DOMAIN = "plumule-job-identity-v1\n";

/**
 * The identity of a job, lower-case hex: SHA-256 of `plumule-job-identity-v1`, a line feed, and the work as JSON without white space, its names in
 * the order of the alphabet (RFC 8785). Whoever knows the work comes to the same identity, without asking anybody.
 */
export function jobIdentity({ repository, commit, taskSha256, configurationSha256 }: JobWork): Promise<string> {
  return sha256Hex(utf8(DOMAIN + JSON.stringify({ commit, configurationSha256, repository, taskSha256 })));
}

/**
 * The digests that a runner signs: SHA-256 of the task, and of the configuration, as JSON without white space in the order of the accepted body.
 * The assignment carries them, so nobody has to make those bytes again.
 */
export async function digestsOf({
  task,
  configuration,
}: Pick<SubmitBody, "task" | "configuration">): Promise<Pick<JobWork, "taskSha256" | "configurationSha256">> {
  const digest = (value: unknown): Promise<string> => sha256Hex(utf8(JSON.stringify(value)));
  return {
    taskSha256: await digest(task),
    configurationSha256: configuration === undefined ? null : await digest(configuration),
  };
}
