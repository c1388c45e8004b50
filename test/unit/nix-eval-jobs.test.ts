import { expect, test } from "vitest";
import { evalJobsAttribute, failureOfJobs, readEvalJob } from "../../runner/src/nix/eval-jobs.ts";

const DRV = "/nix/store/fmbqzaq8mim1423879lhn9whs6imx5w4-patchelf-coverage-0.18.0.drv";

test.each([
  [
    `{"attr":"coverage","attrPath":["coverage"],"drvPath":"${DRV}","inputDrvs":{"/nix/store/a.drv":["out"]},"name":"patchelf-coverage-0.18.0","outputs":{"out":"/nix/store/gfni9sbhhwhxxfqziq1fs3n82bvw962l-patchelf-coverage-0.18.0"},"system":"x86_64-linux"}`,
    { path: ["coverage"], drv: DRV },
  ],
  [
    '{"attr":"a.\\"b.c\\"","attrPath":["a","b.c"],"error":"error:\\n       … while …\\n\\n       error: this is an evaluation error"}',
    { path: ["a", "b.c"], error: "error:\n       … while …\n\n       error: this is an evaluation error" },
  ],
  [
    `{"attr":"x","attrPath":["x"],"drvPath":"${DRV}","error":"doesntexist: does not exist\\n"}`,
    {
      path: ["x"],
      error: "doesntexist: does not exist\n",
    },
  ],
  ['{"attr":"x"}', null],
  ['{"attrPath":[1],"drvPath":"x"}', null],
  ['{"attrPath":["x"],"drvPath":null}', null],
  ["[]", null],
  ["null", null],
  ["", null],
  ["error: unrecognised flag", null],
])("a line of nix-eval-jobs: %s", (line, job) => {
  expect(readEvalJob(line)).toEqual(job);
});

test.each([
  ["checks", "checks.x86_64-linux"],
  ["checks.x86_64-linux", "checks.x86_64-linux"],
  ["packages", "packages.x86_64-linux"],
  ["hydraJobs", "hydraJobs"],
  ["checks.aarch64-linux", null],
  ["packages.x86_64-linux.default", null],
  ["hello", null],
  ["", null],
])("the attribute %j is walked as %j", (attribute, walked) => {
  expect(evalJobsAttribute(attribute, "x86_64-linux")).toBe(walked);
});

test("every attribute that fails is named, with the trace of the first", () => {
  const jobs = [
    { path: ["good"], drv: DRV },
    { path: ["one"], error: "error:\n       … while calling f\n\n       error: boom\n" },
    { path: ["set", "two"], error: "error: bang" },
  ];
  expect(failureOfJobs(".#checks", jobs)).toEqual({
    code: "evaluation-failed",
    detail: ".#checks: 2 of 3 attributes cannot be evaluated: one: boom; set.two: bang",
    lines: ["error:", "       … while calling f", "", "       error: boom"],
  });
  expect(failureOfJobs(".#checks", jobs.slice(0, 1))).toBeNull();
});
