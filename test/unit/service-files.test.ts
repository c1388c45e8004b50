import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bridgeUnit, launchdPlist, systemdUnit } from "../../cli/src/service/units.ts";
import { mayFeed, tellSystemd } from "../../runner/src/health/notify.ts";
import { CONTACT_LIMIT_MS } from "../../runner/src/health/status.ts";
import { heardOf, runnerStatus } from "../support/runner-status.ts";

const plan = {
  command: [process.execPath, "/opt/plu mule/100%/$plumule.mjs"],
  config: "/etc/plumule/runner.json",
  registration: "/etc/plumule/registration",
  user: "root",
};
const bridgePlan = { command: [process.execPath], flags: ["--url", "https://b", "--namespace", "a b"], user: "root" };
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-service-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const harness = join(import.meta.dirname, "../support/nixos-harness.nix");
const flake = join(import.meta.dirname, "../../flake.nix");

describe("the unit of systemd", () => {
  const lines = systemdUnit(plan).split("\n");

  it("stops the runner alone, and never what its runs are", () => {
    expect(lines).toEqual(
      expect.arrayContaining([
        "Type=notify",
        "KillMode=process",
        "KillSignal=SIGHUP",
        "Delegate=yes",
        "DelegateSubgroup=runner",
      ]),
    );
  });

  it("keeps a command's words as they are", () => {
    expect(lines).toContain(
      `ExecStart=${process.execPath} "/opt/plu mule/100%%/$$plumule.mjs" runner start --config /etc/plumule/runner.json --state /var/lib/plumule-runner`,
    );
  });

  it("starts again after what may pass, and not after what a person has to mend", () => {
    expect(lines).toContain("RestartPreventExitStatus=2 3 5 76");
    const documented = readFileSync(join(import.meta.dirname, "../../docs/runner.md"), "utf8");
    const rows = [...documented.matchAll(/^\| \d+ \| (\d+) \| .* \| (no|yes|after .*) \|$/gm)];
    const final = rows.filter(([, code, again]) => code !== "0" && again !== "yes").map(([, code]) => Number(code));
    expect(final.toSorted((one, other) => one - other)).toEqual([2, 3, 5, 76]);
  });

  it("is what systemd takes, where there is one", () => {
    const file = join(folder, "plumule-runner.service");
    writeFileSync(file, systemdUnit({ ...plan, command: [process.execPath] }));
    const verified = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    // Without systemd there is nobody to ask.
    if (verified.error !== undefined) return;
    // What systemd before 254 does not know it passes over.
    const faults = verified.stderr.split("\n").filter((line) => line !== "" && !line.includes("'DelegateSubgroup'"));
    expect([verified.status, faults]).toEqual([0, []]);
  });
});

it("the unit of a bridge keeps its flags, and is what systemd takes, where there is one", () => {
  const text = bridgeUnit(bridgePlan);
  expect(text).toContain(
    `ExecStart=${process.execPath} bridge start --url https://b --namespace "a b" --state /var/lib/plumule-bridge\n`,
  );
  const file = join(folder, "plumule-bridge.service");
  writeFileSync(file, text);
  const verified = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
  if (verified.error === undefined) expect([verified.status, verified.stderr]).toEqual([0, ""]);
});

it("the job of launchd is well-formed, and says what to start", () => {
  const text = launchdPlist({ ...plan, user: "a<b&c" });
  const open: string[] = [];
  for (const [, close, name = "", empty] of text.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)) {
    if (close === "/") expect(open.pop()).toBe(name);
    else if (empty !== "/") open.push(name);
  }
  expect(open).toEqual([]);
  expect(text).toContain("<string>a&lt;b&amp;c</string>");
  expect(text).toMatch(/<string>runner<\/string>\s*<string>start<\/string>/);
});

describe("the modules of NixOS, evaluated by Nix without nixpkgs", () => {
  const evaluate = (name: string, given: string): { status: number | null; stderr: string; value: unknown } => {
    const expression = `import ${harness} {
      module = ((import ${flake}).outputs { self = { }; }).nixosModules.${name};
      given = ${given};
    }`;
    const args = ["--eval", "--strict", "--json", "--expr", expression];
    const { status, stdout, stderr } = spawnSync("nix-instantiate", args, { encoding: "utf8" });
    return { status, stderr, value: status === 0 ? JSON.parse(stdout) : null };
  };

  it("make a service of each runner, with the lines of the unit above", () => {
    const { value, stderr } = evaluate(
      "runner",
      `{ services.plumule-runner.instances = {
           king = { package = "/pkg"; registrationFile = "/secret/token"; settings = { url = "https://b"; namespace = "me"; capacity = 2; }; };
           queen = { package = "/pkg"; enable = false; user = "queen"; };
         }; }`,
    );
    expect(stderr).toBe("");
    const { systemd, users } = value as {
      systemd: { services: Record<string, { enable: boolean; serviceConfig: Record<string, unknown> }> };
      users: { users: Record<string, unknown> };
    };
    const king = systemd.services["plumule-runner-king"]?.serviceConfig ?? {};
    expect(king["ExecStart"]).toBe(
      '/pkg/bin/plumule runner start --config <plumule-runner-king.json>{"capacity":2,"name":"king","namespace":"me","url":"https://b"} --state /var/lib/plumule-runner-king',
    );
    expect(king["LoadCredential"]).toBe("registration:/secret/token");
    const unit = new Map(
      systemdUnit(plan)
        .split("\n")
        .map((line) => line.split(/=(.*)/s) as [string, string]),
    );
    for (const name of [
      "Type",
      "NotifyAccess",
      "WatchdogSec",
      "KillMode",
      "KillSignal",
      "Restart",
      "RestartPreventExitStatus",
    ])
      expect(king[name]).toBe(unit.get(name));
    expect(systemd.services["plumule-runner-queen"]).toMatchObject({ enable: false });
    expect(systemd.services["plumule-runner-queen"]?.serviceConfig).not.toHaveProperty("LoadCredential");
    expect(Object.keys(users.users)).toEqual(["plumule", "queen"]);
  });

  it("put a hook into each repository of the bridge", () => {
    const { value } = evaluate(
      "bridge",
      `{ services.plumule-bridge = { package = "/pkg"; repositories."/srv/git/site.git" = {
           url = "https://b"; namespace = "it's"; keyFile = "/secret/key"; }; }; }`,
    );
    const [rule = ""] = (value as { systemd: { tmpfiles: { rules: string[] } } }).systemd.tmpfiles.rules;
    expect(rule).toMatch(/^L\+ \/srv\/git\/site\.git\/hooks\/post-receive - - - - /);
    expect(rule).toContain("export PLUMULE_NAMESPACE='it'\\''s'");
    expect(rule).toContain("exec /pkg/bin/plumule-post-receive");
  });

  it("make a service of each bridge beside a node, with the lines of its unit", () => {
    const { value, stderr } = evaluate(
      "bridge",
      `{ services.plumule-bridge = { package = "/pkg"; nodes.home = {
           url = "https://b"; namespace = "me"; repositories = [ "rad:z1" "rad:z2" ]; follow = [ "did:key:z" ]; }; }; }`,
    );
    expect(stderr).toBe("");
    const { services } = (
      value as { systemd: { services: Record<string, { serviceConfig: Record<string, unknown> }> } }
    ).systemd;
    const service = services["plumule-bridge-home"]?.serviceConfig ?? {};
    expect(service["ExecStart"]).toBe(
      "/pkg/bin/plumule bridge start --url https://b --namespace me --hook radicle --rad-home /var/lib/radicle --repo rad:z1 --repo rad:z2 --follow did:key:z --state /var/lib/plumule-bridge-home",
    );
    for (const name of ["Type", "Restart", "RestartPreventExitStatus", "ProtectSystem"])
      expect(bridgeUnit(bridgePlan)).toContain(`\n${name}=${String(service[name])}\n`);
  });

  it("say which option is unknown, or missing", () => {
    expect(
      evaluate("runner", '{ services.plumule-runner.instances.king = { package = "/p"; lables = [ ]; }; }').stderr,
    ).toContain("there is no option config.services.plumule-runner.instances.king.lables");
    expect(evaluate("runner", "{ services.plumule-runner.instances.king = { }; }").stderr).toContain(
      "package is not set",
    );
  });
});

describe("systemd", () => {
  it("has its watchdog fed only while the broker answers and the loop turns", () => {
    expect(mayFeed(runnerStatus())).toBe(true);
    expect(mayFeed(runnerStatus(heardOf(CONTACT_LIMIT_MS + 1)))).toBe(false);
    expect(mayFeed(runnerStatus(heardOf(null)))).toBe(false);
    expect(mayFeed(runnerStatus({ loopAgoMs: 500_000 }))).toBe(false);
    expect(mayFeed(runnerStatus({ phase: "draining", ...heardOf(500_000) }))).toBe(true);
  });

  it("is told through its own helper that the runner is ready, lives and leaves", async () => {
    const heard = join(folder, "heard");
    const helper = join(folder, "systemd-notify");
    writeFileSync(heard, "");
    writeFileSync(helper, `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >>${heard}\n`);
    chmodSync(helper, 0o755);
    const told = async (text: string): Promise<void> => {
      const watcher = watch(heard);
      while (!readFileSync(heard, "utf8").includes(text)) await once(watcher, "change");
      watcher.close();
    };
    const env = { NOTIFY_SOCKET: "@there", WATCHDOG_USEC: "20000", PATH: `${folder}:${process.env["PATH"]}` };
    const systemd = tellSystemd(env, async () => runnerStatus());
    await told(`@there --pid=${process.pid} --ready`);
    await told("WATCHDOG=1");
    systemd.leaving();
    await told("STOPPING=1");
    tellSystemd({}, async () => runnerStatus()).leaving();
  });
});

it("the command prints a file and writes nothing", () => {
  const main = join(import.meta.dirname, "../../cli/src/main.ts");
  const printed = execFileSync(process.execPath, [main, "runner", "install-service", "--kind", "systemd"], {
    encoding: "utf8",
  });
  expect(printed).toContain(`ExecStart=${process.execPath} ${main} runner start`);
  const bridge = ["bridge", "install-service", "--user", "radicle", "--", "--url", "https://b", "--namespace", "me"];
  expect(execFileSync(process.execPath, [main, ...bridge], { encoding: "utf8" })).toContain(
    `ExecStart=${process.execPath} ${main} bridge start --url https://b --namespace me --state /var/lib/plumule-bridge`,
  );
});
