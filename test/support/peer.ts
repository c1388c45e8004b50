import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type * as protocol from "../../protocol/src/index.ts";
import type * as runner from "../../runner/src/index.ts";
import { ADMIN_TOKEN } from "./workers.ts";

/** Somebody who uses a namespace through the client of one release. */
export type Peer = {
  ns: string;
  token: string;
  client: protocol.ClientDeps;
  submit(deployment: string, body: protocol.SubmitBody): Promise<protocol.JobView>;
  job(id: string): Promise<protocol.JobDetail>;
  /** Waits for something to be true of a job; by default, that it has ended. */
  until(id: string, reached?: (detail: protocol.JobDetail) => boolean, withinMs?: number): Promise<protocol.JobDetail>;
  log(run: string): Promise<string>;
  cancel(job: string): Promise<void>;
  /** Every event of a deployment. */
  events(deployment: string): Promise<protocol.Event[]>;
  /** A token with which one runner may register. */
  registration(): Promise<string>;
  /** Starts a runner of some code in this process, with its state below `folder`. */
  startRunner(
    code: typeof runner,
    folder: string,
    options?: Partial<runner.RunnerOptions>,
    fetched?: protocol.ClientDeps["fetch"],
  ): Promise<runner.RunningRunner & { said: string[] }>;
};

/** Opens a namespace of its own at a broker and speaks to it as `of` does. The broker may be away while `until` waits. */
export async function openPeer(baseUrl: string, of: typeof protocol): Promise<Peer> {
  const ns = `peer-${randomUUID().slice(0, 8)}`;
  const must = <E extends protocol.Endpoint>(answer: protocol.CallAnswer<E>): never => {
    if (!answer.ok) throw new Error(`${answer.problem.code}: ${answer.problem.detail}`);
    return answer.answer.body as never;
  };
  const admin = { fetch, baseUrl, bearer: ADMIN_TOKEN };
  must(await of.call(admin, of.createNamespace, { params: {}, body: { id: ns } }));
  const params = { ns };
  const body = { name: "peer", scopes: ["admin" as const] };
  const { token } = must(await of.call(admin, of.createToken, { params, body })) as protocol.TokenCreated;
  const client = { fetch, baseUrl, bearer: token };
  const peer: Peer = {
    ns,
    token,
    client,
    submit: async (deployment, spec) =>
      (must(await of.call(client, of.submitJob, { params: { ns, deployment }, body: spec })) as protocol.SubmitAnswer)
        .job,
    job: async (id) => must(await of.call(client, of.getJob, { params: { ns, job: id } })),
    async until(id, reached = ({ job }) => of.isFinalJobState(job.state), withinMs = 30_000) {
      let seen = "nothing";
      for (const end = Date.now() + withinMs; Date.now() < end; await new Promise((next) => setTimeout(next, 50))) {
        const detail = await peer.job(id).catch((error: unknown) => String(error));
        if (typeof detail !== "string" && reached(detail)) return detail;
        seen = typeof detail === "string" ? detail : JSON.stringify(detail.job);
      }
      throw new Error(`job ${id}: ${seen}`);
    },
    async log(run) {
      const answer = await of.call(client, of.getLog, { params: { ns, run } });
      if (!answer.ok) throw new Error(answer.problem.detail);
      return answer.response.text();
    },
    async cancel(job) {
      must(await of.call(client, of.cancelJob, { params: { ns, job } }));
    },
    async events(deployment) {
      const answer = await of.call(client, of.getDeploymentEvents, { params: { ns, deployment } });
      return (must(answer) as protocol.EventsPage).events;
    },
    async registration() {
      const answer = await of.call(client, of.createRegistration, { params, body: {} });
      return (must(answer) as { token: string }).token;
    },
    async startRunner(code, folder, options = {}, fetched = fetch) {
      const name = options.name ?? `runner-${randomUUID().slice(0, 8)}`;
      const said: string[] = [];
      const state = join(folder, name);
      const nixStore = join(folder, "nix");
      const started = await code.startRunner(
        { url: baseUrl, namespace: ns, state, name, registration: await peer.registration(), nixStore, ...options },
        { fetch: fetched, say: (line) => said.push(line) },
      );
      if ("refused" in started) throw new Error(started.refused);
      return { ...started, said };
    },
  };
  return peer;
}
