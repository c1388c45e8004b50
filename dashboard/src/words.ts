import type { DeploymentState, Derivation, JobState, VerdictView } from "@plumule/protocol";
import { h } from "./dom.ts";

type Look = { icon: string; tone: "quiet" | "busy" | "good" | "bad" | "odd" };

/** How a state looks. A sign and a word beside the colour: nobody has to tell colours apart. */
const LOOKS: Readonly<
  Record<JobState | DeploymentState | Derivation["state"] | VerdictView["verdict"] | "online" | "offline", Look>
> = {
  held: { icon: "⏸", tone: "odd" },
  queued: { icon: "○", tone: "quiet" },
  assigned: { icon: "◔", tone: "busy" },
  running: { icon: "◑", tone: "busy" },
  cancelling: { icon: "⊘", tone: "odd" },
  succeeded: { icon: "✓", tone: "good" },
  failed: { icon: "✗", tone: "bad" },
  cancelled: { icon: "⊘", tone: "quiet" },
  superseded: { icon: "↷", tone: "quiet" },
  skipped: { icon: "–", tone: "quiet" },
  unknown: { icon: "?", tone: "odd" },
  idle: { icon: "○", tone: "quiet" },
  deploying: { icon: "◑", tone: "busy" },
  active: { icon: "●", tone: "good" },
  destroying: { icon: "⊘", tone: "odd" },
  online: { icon: "●", tone: "good" },
  offline: { icon: "○", tone: "quiet" },
  planned: { icon: "○", tone: "quiet" },
  building: { icon: "◑", tone: "busy" },
  waiting: { icon: "◔", tone: "busy" },
  substituting: { icon: "↓", tone: "busy" },
  built: { icon: "✓", tone: "good" },
  cached: { icon: "✓", tone: "quiet" },
  substituted: { icon: "↓", tone: "good" },
  "dependency-failed": { icon: "✗", tone: "quiet" },
  timeout: { icon: "✗", tone: "bad" },
  "log-limit": { icon: "✗", tone: "bad" },
  "hash-mismatch": { icon: "✗", tone: "bad" },
  "not-deterministic": { icon: "✗", tone: "bad" },
  pending: { icon: "○", tone: "quiet" },
  agreed: { icon: "✓", tone: "good" },
  diverged: { icon: "≠", tone: "bad" },
  insufficient: { icon: "✗", tone: "odd" },
  expired: { icon: "✗", tone: "odd" },
  revoked: { icon: "✗", tone: "odd" },
  lost: { icon: "?", tone: "odd" },
};

/** A state as icon, word and colour. */
export function pill(state: keyof typeof LOOKS): HTMLElement {
  const { icon, tone } = LOOKS[state];
  return h("span", { class: `pill ${tone}` }, h("span", { class: "icon", "aria-hidden": "true" }, icon), ` ${state}`);
}

/** A time of the wire as people read it, the exact one on hover. */
export function clock(time: string): HTMLElement {
  const at = new Date(time);
  const isToday = at.toDateString() === new Date().toDateString();
  const text = isToday ? at.toLocaleTimeString() : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: time, title: time }, text);
}

/** A duration in ms as `0.8 s`, `14 s`, `1:34` or `2:01:34`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const pad = (number: number): string => String(Math.floor(number) % 60).padStart(2, "0");
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}:${pad(seconds)}`
    : `${Math.floor(seconds / 3600)}:${pad(seconds / 60)}:${pad(seconds)}`;
}

/** The end of a did:key, which is what differs. */
export function shortRunner(runner: string): string {
  return `…${runner.slice(-8)}`;
}

/** Marks that turn text around, so that what is read is not what is there ("Trojan Source"). */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text from a job with marks of direction shown as escapes. */
export function plain(text: string): string {
  return text.replaceAll(BIDI, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Where a deployment and a job have their pages. */
export function deploymentPath(id: string): string {
  return `/d/${encodeURIComponent(id)}`;
}
export function jobPath(id: string): string {
  return `/j/${encodeURIComponent(id)}`;
}
