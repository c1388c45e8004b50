import { TRUST_LIMITS } from "@plumule/protocol";
import { RUNNER_SUBGROUP } from "../cgroup.ts";
import { type IsolationReport, NO_IMAGE, RUNNER_ISOLATION_LEVELS, type RunnerIsolationLevel } from "../isolation.ts";
import { describeMeans, isByCgroup, type MachineLimits } from "../limits/limits.ts";

/**
 * What was looked at, how it stands, what was found, and what to do about it. `care`: the runner works, but not as well as it could; `bad`: it
 * cannot work like this.
 */
export type Check = { name: string; standing: "good" | "care" | "bad"; found: string; fix: string | null };

/** A check that needs nothing done. */
export function good(name: string, found: string): Check {
  return { name, standing: "good", found, fix: null };
}

/** A check that somebody should look at. */
export function care(name: string, found: string, fix: string): Check {
  return { name, standing: "care", found, fix };
}

/** A check without which nothing works. */
export function bad(name: string, found: string, fix: string): Check {
  return { name, standing: "bad", found, fix };
}

/** Beyond this the times in statements look wrong to whoever reads them, ms. */
const SKEW_CARE_MS = 30_000;

/** This machine's clock against the broker's; `skewMs` is how far it is ahead. */
export function judgeClock(skewMs: number): Check {
  const apart = Math.abs(skewMs);
  const found = `${(apart / 1000).toFixed(0)} s ${skewMs < 0 ? "behind" : "ahead of"} the broker's`;
  const fix = "Let the clock be set from the network: `timedatectl set-ntp true`.";
  if (apart <= SKEW_CARE_MS) return good("clock", found);
  return apart <= TRUST_LIMITS.registrationWindowMs ? care("clock", found, fix) : bad("clock", found, fix);
}

/** The versions of the wire that the broker serves against those that this code speaks. */
export function judgeProtocol(
  broker: { protocol: number; protocolFloor: number },
  own: { newest: number; oldest: number },
): Check {
  const found = `the broker speaks ${broker.protocolFloor} to ${broker.protocol}, this runner ${own.newest}`;
  if (own.newest < broker.protocolFloor) return bad("protocol", found, "Update plumule on this machine.");
  if (own.newest > broker.protocol)
    return bad("protocol", found, "Update the broker first: it is older than this runner.");
  return good("protocol", found);
}

/** Free space where the runner keeps everything, against the floor below which it asks for no work, bytes. */
export function judgeDisk(freeBytes: number, floorBytes: number, folder: string): Check {
  const found = `${gib(freeBytes)} free at ${folder}, and the floor is ${gib(floorBytes)}`;
  const fix = "Make room (`nix-collect-garbage -d` removes what Nix does not need), or set --disk-floor-bytes lower.";
  if (freeBytes < floorBytes) return bad("disk", found, fix);
  return freeBytes < 2 * floorBytes ? care("disk", found, fix) : good("disk", found);
}

/** Where opened secrets lie. */
export function judgeSecrets(folder: string | null, onDisk: boolean): Check {
  if (folder === null)
    return care(
      "secrets",
      "no file system in memory at /dev/shm or /run/user",
      "Mount a tmpfs at /dev/shm; until then jobs with secrets go elsewhere (--secrets-on-disk allows the disk).",
    );
  if (onDisk) return care("secrets", `on the disk, in ${folder}`, "Mount a tmpfs at /dev/shm.");
  return good("secrets", `in memory, below ${folder}`);
}

/** Why effects cannot be kept in a sandbox, or null. */
export function judgeEffects(fault: string | null): Check {
  if (fault === null) return good("effects", "kept in a sandbox of bubblewrap");
  const fix = "Install bubblewrap and use the isolation level bwrap or userns; until then effects go elsewhere.";
  return care("effects", fault, fix);
}

/** A private file of the runner; null when it is there and nobody else's. */
export function judgeKeyFile(name: string, path: string, refusal: { reason: string; detail: string } | null): Check {
  if (refusal === null) return good(name, path);
  if (refusal.reason === "missing") return good(name, `none yet; the first start makes ${path}`);
  if (refusal.reason === "permissions") return bad(name, refusal.detail, `Look at it, then: chmod 600 ${path}`);
  return bad(name, refusal.detail, "Move it away, or name another file; then start the runner.");
}

/** How processes of jobs can be held together here, and why not better. */
export function judgeIsolation(report: IsolationReport, wanted: RunnerIsolationLevel | undefined): Check[] {
  const level = wanted ?? report.level;
  const why = (one: RunnerIsolationLevel): string => report.unavailable.get(one) ?? "not tried";
  const levels = RUNNER_ISOLATION_LEVELS.map((one) => {
    const name = `isolation ${one}`;
    if (report.available.includes(one)) return good(name, one === level ? "works, and is used" : "works");
    // Which files jobs see is for the owner to choose, and nothing that is missing.
    if (why(one) === NO_IMAGE && one !== wanted) return good(name, `not used: ${NO_IMAGE}`);
    return one === wanted
      ? bad(name, why(one), "Mend it, or leave --isolation away: the best level that works is then used.")
      : care(name, why(one), ISOLATION_FIX[one]);
  });
  // A weaker level that is missing is nothing to mend while a better one works.
  const used = RUNNER_ISOLATION_LEVELS.indexOf(report.level);
  return levels.map((check, index) =>
    check.standing === "care" && index > used ? { ...check, standing: "good", fix: null } : check,
  );
}

/** How well a job's memory and tasks can be limited here. */
export function judgeLimits(limits: MachineLimits): Check[] {
  const fix = `Give the runner a cgroup of its own to divide: \`Delegate=yes\` and \`DelegateSubgroup=${RUNNER_SUBGROUP}\` in its unit (systemd 254 or later). If it has them, ask as the unit would: \`systemd-run --pipe --uid=USER -p Delegate=yes -p DelegateSubgroup=${RUNNER_SUBGROUP} plumule doctor …\`.`;
  return describeMeans(limits).map((found, index) => {
    const [name, means] =
      index === 0 ? (["memory limit", limits.memory] as const) : (["task limit", limits.tasks] as const);
    return isByCgroup(means) ? good(name, found) : care(name, found, fix);
  });
}

const ISOLATION_FIX: Readonly<Record<RunnerIsolationLevel, string>> = {
  container:
    "Install podman, give the runner's user an image that it can run (`podman pull`), and name it with --container-image.",
  bwrap:
    "Install bubblewrap. On Ubuntu 23.10 and later AppArmor blocks unprivileged user namespaces: give bwrap a profile in /etc/apparmor.d with `userns,`, or set sysctl kernel.apparmor_restrict_unprivileged_userns=0.",
  userns:
    "Install util-linux. On Ubuntu 23.10 and later AppArmor blocks unprivileged user namespaces: set sysctl kernel.apparmor_restrict_unprivileged_userns=0.",
  cgroup: "Give the service its own cgroup: `Delegate=yes` in the unit.",
  "process-group": "Install util-linux and a shell.",
};

/** What was found of Nix. `settings` by name, as `nix config show` says. */
export type NixFindings = {
  version: string;
  flakes: boolean;
  sandbox: boolean;
  /** The builds are a daemon's, which answers or does not; null when this user writes the store itself. */
  daemon: "answers" | "silent" | null;
  /** This user may tell the daemon anything. */
  trusted: boolean;
  user: string;
};

/** Nix on this machine; a reason when there is none. */
export function judgeNix(nix: NixFindings | { why: string }): Check[] {
  if ("why" in nix)
    return [
      care("nix", nix.why, "Install Nix (https://nixos.org/download); until then the runner takes shell jobs alone."),
    ];
  const { version, flakes, sandbox, daemon, trusted, user } = nix;
  return [
    flakes
      ? good("nix", `version ${version}, with flakes`)
      : care("nix", `version ${version} has no flakes`, "Update Nix to 2.4 or later."),
    daemon === null
      ? good("nix daemon", `not needed: ${user} writes the store`)
      : daemon === "answers"
        ? good("nix daemon", "answers")
        : bad("nix daemon", "does not answer", "Start it: `systemctl enable --now nix-daemon.socket`."),
    trusted && daemon !== null && user !== "root"
      ? care(
          "nix trust",
          `the daemon trusts ${user}, whom jobs run as: a job could become root through it`,
          `Take ${user} out of trusted-users in /etc/nix/nix.conf.`,
        )
      : good("nix trust", trusted ? `${user} owns the store` : `${user} is not trusted by the daemon, as it should be`),
    sandbox
      ? good("nix sandbox", "on")
      : care(
          "nix sandbox",
          "off: builds see this machine, and their provenance says so",
          "Set `sandbox = true` in /etc/nix/nix.conf.",
        ),
  ];
}

/** A number of bytes for people. */
export function gib(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}
