import { ERRORS, JOB_STATES, problemOf, refuse, type ErrorCode, type JobState } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { EXIT, exitCodeLines, exitOfJob, exitOfProblem, exitOfWhole } from "../../cli/src/exit-codes.ts";

describe("exit codes", () => {
  it("are the documented ones", () => {
    expect(EXIT).toEqual({
      ok: 0,
      failed: 1,
      usage: 2,
      authentication: 3,
      notFound: 4,
      conflict: 5,
      cancelled: 6,
      superseded: 7,
      unverified: 8,
      noRunner: 9,
      unreachable: 69,
      tryAgain: 75,
      outdated: 76,
      timeout: 124,
      neverRan: 125,
      interrupted: 130,
    });
    expect(exitCodeLines().map((line) => Number(line.slice(0, 4)))).toEqual(Object.values(EXIT));
  });

  it("tell how a job ended", () => {
    const codes = JOB_STATES.map((state) => [state, exitOfJob({ state, reason: null })]);
    expect(Object.fromEntries(codes)).toEqual({
      held: 1,
      queued: 1,
      assigned: 1,
      running: 1,
      cancelling: 1,
      succeeded: 0,
      failed: 1,
      cancelled: 6,
      superseded: 7,
      skipped: 0,
      unknown: 1,
    });
    expect(exitOfJob({ state: "failed", reason: { code: "queue-timeout", detail: "" } })).toBe(9);
  });

  it("tell of a job that became others the worst of their ends", () => {
    const ends = (...states: JobState[]): number =>
      exitOfWhole(
        { state: "succeeded", reason: null },
        states.map((state) => ({ state, reason: null })),
      );
    expect(ends("succeeded", "skipped")).toBe(0);
    expect(ends("cancelled", "failed", "succeeded")).toBe(1);
    expect(ends("superseded", "cancelled")).toBe(6);
    expect(ends("succeeded", "queued")).toBe(1);
    expect(exitOfWhole({ state: "cancelled", reason: null }, [])).toBe(6);
    const reason = { code: "queue-timeout" as const, detail: "" };
    expect(exitOfWhole({ state: "succeeded", reason: null }, [{ state: "failed", reason }])).toBe(9);
  });

  it("tell what the broker refused, for every refusal there is", () => {
    const usage = [
      "invalid-body",
      "invalid-json",
      "invalid-parameter",
      "invalid-cursor",
      "missing-header",
      "weak-key",
      "method-not-allowed",
      "payload-too-large",
      "unsupported-media-type",
      "log-gap",
      "invalid-configuration",
      "invalid-statement",
      "upgrade-required",
      "precondition-required",
    ];
    const rest: Partial<Record<ErrorCode, number>> = {
      unauthenticated: 3,
      "bad-signature": 3,
      "timestamp-out-of-window": 3,
      forbidden: 3,
      "not-found": 4,
      gone: 4,
      "cursor-expired": 4,
      "log-expired": 4,
      conflict: 5,
      busy: 5,
      "already-final": 5,
      "in-apply-phase": 5,
      "wrong-state": 5,
      "stale-lease": 5,
      "log-conflict": 5,
      "idempotency-in-flight": 5,
      "revision-conflict": 5,
      "idempotency-mismatch": 5,
      "rate-limited": 75,
      "protocol-too-old": 76,
      "quota-exceeded": 75,
      internal: 75,
      unavailable: 75,
    };
    const codes = Object.keys(ERRORS).map((code) => [code, exitOfProblem(problemOf(refuse(code as ErrorCode, "")))]);
    expect(Object.fromEntries(codes)).toEqual({ ...Object.fromEntries(usage.map((code) => [code, 2])), ...rest });
  });

  it("take a proxy's error page for a broker that cannot be reached", () => {
    expect(exitOfProblem({ status: 502, code: "internal" })).toBe(69);
  });
});
