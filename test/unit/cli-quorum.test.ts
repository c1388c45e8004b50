import { type Envelope, submitBodySchema } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { isBelieved } from "../../cli/src/commands/verify.ts";
import { quorumOf } from "../../cli/src/flags.ts";
import { jobRequest } from "../../cli/src/job-request.ts";
import { judge, judgedLines, matrixLines } from "../../cli/src/judging.ts";
import type { PinnedKey } from "../../cli/src/trust-store.ts";
import { examine, type Examined } from "../../cli/src/verification.ts";
import { plain } from "./cli-fixtures.ts";
import { dids, narHash, policy, signedJobResult, signerNumber } from "./trust-fixtures.ts";

const OTHER = "f".repeat(64);
const pins: PinnedKey[] = dids.slice(0, 3).map((key) => ({ key, name: null, pinnedAt: "2026-11-20T00:00:00.000Z" }));

/** What the runner with this number signed, looked at under three pinned keys. */
async function looked(number: number, nar = narHash): Promise<Examined> {
  const outputs = [
    { name: "out", path: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a", narHash: nar, narSize: 120 },
  ];
  const envelope: Envelope = await signedJobResult(await signerNumber(number + 1), { outputs });
  return examine(envelope, pins, {});
}

const asked = { pinned: pins, policy: null, quorum: { replicas: 3, agree: 2 }, ref: "refs/heads/main" };

describe("a reader's own verdict", () => {
  it("needs as many pinned keys as have to agree, and is untouched by others", async () => {
    const examined = [await looked(0), await looked(1), await looked(4, OTHER)];
    const judged = judge(examined, asked);
    expect(judged.verdict).toMatchObject({ verdict: "agreed", agreeing: 2, strangers: [{ signer: dids[4] }] });
    expect(isBelieved({ examined, summaries: [], judged })).toBe(true);
    const alone = judge([await looked(0), await looked(4)], asked);
    expect(isBelieved({ examined, summaries: [], judged: alone })).toBe(false);
  });

  it("is by a policy of the reader's where there is one", async () => {
    const examined = [await looked(0), await looked(2)];
    const one = { ...asked, policy: policy({ k: 2 }), quorum: null };
    // Both keys are of one operator.
    expect(judge(examined, one)).toMatchObject({
      by: "your policy",
      verdict: { verdict: "insufficient", agreeing: 1 },
    });
  });

  it("shows who said what, and which output differs", async () => {
    const { verdict, by } = judge([await looked(0), await looked(1), await looked(2, OTHER)], asked);
    const lines = plain(judgedLines({ verdict, by }));
    expect(lines).toContain(`● A  ${dids[0]!.slice(8, 16)}…`);
    expect(lines).toContain("out differs");
    expect(lines).toContain(`A  sha256:${narHash}  2 votes`);
    expect(lines).toContain(`B  sha256:${OTHER}  1 vote`);
    expect(matrixLines(verdict)).toHaveLength(6);
  });
});

describe("--quorum", () => {
  it("is how many agree of how many, and gets into the job", async () => {
    expect(quorumOf("2/3")).toEqual({ agree: 2, replicas: 3 });
    expect(quorumOf("2")).toEqual({ agree: 2, replicas: 2 });
    for (const wrong of ["0/3", "3/2", "2/9", "two", "1/", "-1"])
      expect(() => quorumOf(wrong)).toThrow(/AGREE\/REPLICAS/);
    const request = await jobRequest(
      "web",
      { shell: "true", quorum: quorumOf("2/3"), distinct: "operator" },
      { cwd: "/", checkout: null, isLocal: false },
    );
    expect(request).toMatchObject({ body: { quorum: { agree: 2, replicas: 3, distinct: "operator" } } });
  });

  it("is refused for an effect", () => {
    const body = { task: { kind: "effect", installable: ".#deploy" }, quorum: { replicas: 2, agree: 2 } };
    expect(submitBodySchema.safeParse(body).error?.issues).toMatchObject([{ path: ["quorum"] }]);
  });
});
