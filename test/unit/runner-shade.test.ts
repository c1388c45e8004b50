import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { probeIsolation } from "../../runner/src/isolation.ts";
import type { ProcessRequest } from "../../runner/src/process.ts";

const { unavailable } = probeIsolation();
const NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"];
const users = spawnSync("setpriv", [...NOBODY, "unshare", "--user", "true"]).status === 0 ? [null, NOBODY] : [null];

let state: string;
const at = (path: string): string => join(state, path);
const FOREIGN = [
  "mirrors/other/config",
  "warm/slots/other/file",
  "workspaces/other/file",
  "journal/run.json",
  "key.pem",
];

beforeEach(() => {
  state = realpathSync(mkdtempSync(join(tmpdir(), "plumule-shade-")));
  for (const path of [...FOREIGN, "mirrors/own/config", "workspaces/own/file", "workspaces/own/checkout/file"]) {
    mkdirSync(join(at(path), ".."), { recursive: true });
    writeFileSync(at(path), "before");
  }
  // For whoever is nobody here, as what a runner keeps is its own user's.
  spawnSync("chmod", ["-R", "a+rwX", state]);
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

/** What a job with this script prints, run in a process of its own, as another user where `options` of setpriv say so. */
function printed(level: string, options: readonly string[] | null, script: string): string {
  const request: Omit<ProcessRequest, "onOutput"> = {
    argv: ["bash", "-c", script],
    cwd: at("workspaces/own/checkout"),
    env: { PATH: process.env["PATH"] ?? "", STATE: state },
    level: level as ProcessRequest["level"],
    shade: {
      hidden: [state, at("missing")],
      shown: [
        { path: at("workspaces/own"), writable: true },
        { path: at("mirrors/own"), writable: false },
        { path: at("missing"), writable: false },
        { path: "/usr", writable: false },
      ],
    },
    merged: true,
    graceMs: 0,
  };
  const source = `import { runProcess } from ${JSON.stringify(join(import.meta.dirname, "../../runner/src/process.ts"))};
    const request = JSON.parse(process.argv[1]);
    const { detail } = await runProcess({ ...request, onOutput: (chunk) => void process.stdout.write(Buffer.from(chunk)) });
    if (detail !== null) console.log(detail);`;
  const node = [process.execPath, "--input-type=module", "-e", source, JSON.stringify(request)];
  const [file = "", ...args] = options === null ? node : ["setpriv", ...options, ...node];
  const { stdout, stderr } = spawnSync(file, args, { encoding: "utf8", cwd: "/" });
  return stdout + stderr;
}

describe.each(["bwrap", "userns"] as const)("a job at the level %s", (level) => {
  it.skipIf(unavailable.has(level)).each(users)(
    "sees and changes of its runner's files its own alone (user: %j)",
    (user) => {
      const seen = printed(level, user, "cat ../file file $STATE/mirrors/own/config; cd $STATE; find . -type f | sort");
      const own = ["mirrors/own/config", "workspaces/own/checkout/file", "workspaces/own/file"];
      expect(seen).toBe(`beforebeforebefore${own.map((path) => `./${path}\n`).join("")}`);
      const hostile = ["mirrors/own/config", ...FOREIGN].map(
        (path) => `mkdir -p $STATE/${path}/..; echo bad >$STATE/${path}`,
      );
      const back = "echo bad >../../other/file; echo bad >../../../key.pem";
      const undo = "unshare --user --mount umount $STATE && cat $STATE/key.pem";
      printed(level, user, [...hostile, back, undo, "echo own >file"].join("\n"));
      for (const path of ["mirrors/own/config", ...FOREIGN]) expect(readFileSync(at(path), "utf8")).toBe("before");
      expect(readFileSync(at("workspaces/own/checkout/file"), "utf8")).toBe("own\n");
    },
  );

  it.skipIf(unavailable.has(level) || users.length === 1)("has no right to undo that when its runner has none", () => {
    expect(printed(level, NOBODY, "umount $STATE || umount -l $STATE; grep -h '^Cap[PE]' /proc/self/status")).toMatch(
      /CapPrm:\s0+\nCapEff:\s0+\n$/,
    );
  });
});
