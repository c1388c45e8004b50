import { execFile } from "node:child_process";
import { CONTACT_LIMIT_MS, faultsOfLife, type RunnerStatus } from "./status.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Whether systemd's watchdog may be fed: the loop turns and the broker answers, or the last runs are being waited for. */
export function mayFeed(status: RunnerStatus): boolean {
  const { contactAgoMs } = status.broker;
  if (status.phase !== "working") return true;
  return faultsOfLife(status).length === 0 && contactAgoMs !== null && contactAgoMs <= CONTACT_LIMIT_MS;
}

/**
 * Tells systemd that the runner has started, feeds its watchdog while the runner works, and says at the end that it leaves. Does nothing where
 * no systemd asked for it (sd_notify(3): `NOTIFY_SOCKET`, `WATCHDOG_USEC`). Node cannot write to a datagram socket, so `systemd-notify` does,
 * which comes with systemd; it waits until its word was heard.
 */
export function tellSystemd(env: Env, status: () => Promise<RunnerStatus>): { leaving(): void } {
  const socket = env["NOTIFY_SOCKET"];
  if (socket === undefined || socket === "") return { leaving: () => {} };
  const tell = (...words: string[]): void => {
    const own = { NOTIFY_SOCKET: socket, PATH: env["PATH"] ?? "/usr/bin:/bin" };
    // Without it systemd does what it does to a service that says nothing.
    execFile("systemd-notify", [`--pid=${process.pid}`, ...words], { env: own }, () => {});
  };
  tell("--ready");
  const everyMs = Number(env["WATCHDOG_USEC"] ?? 0) / 2_000;
  const feed = async (): Promise<void> => {
    if (mayFeed(await status())) tell("WATCHDOG=1");
  };
  const timer = everyMs > 0 ? setInterval(() => void feed(), everyMs).unref() : undefined;
  return {
    leaving() {
      clearInterval(timer);
      tell("STOPPING=1");
    },
  };
}
