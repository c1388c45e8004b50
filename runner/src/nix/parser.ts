import { LIMITS } from "@plumule/protocol";
import { DerivationBook, isFailure, type Derivation, type NixProgress } from "./derivations.ts";
import { MAX_REASON_CHARS, readVerdict, type Verdict } from "./failure.ts";
import { ACTIVITY, RESULT, decodeLine, stripColour, type NixEvent } from "./lines.ts";
import { LogTails } from "./log-tails.ts";
import type { Plan } from "./plan.ts";
import { Transfers } from "./transfers.ts";

/** What the parser makes of the stream, in order. */
export type NixOutput =
  /** Text for people, without the final newline; may hold several lines and colour sequences. */
  | { readonly kind: "log"; readonly text: string; readonly drv?: string }
  | { readonly kind: "derivation"; readonly derivation: Derivation }
  | { readonly kind: "progress"; readonly progress: NixProgress };

/** How the process ended, and what the store says about {@link NixLog.unsettled}. */
export interface NixEnd {
  /** Null when a signal killed Nix. */
  readonly exitCode: number | null;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  /** The derivations whose outputs are all valid. Without it, Nix's own counter of successes decides. */
  readonly valid?: ReadonlySet<string>;
}

/** What went wrong first: of what was built, and the last lines of its log. */
export interface NixFirstFailure {
  readonly derivation: Derivation;
  readonly lines: readonly string[];
}

type StartEvent = Extract<NixEvent, { action: "start" }>;

/** Messages beyond this verbosity (3 = info) are for people who debug Nix. */
const MAX_LEVEL = 3;
/** Error messages kept for the summary of a failed build. */
const MAX_ERRORS = 20;
/** Length of one of them: newer versions repeat the tail of the builder's log in it. */
const MAX_ERROR_CHARS = 8192;
/** Characters of a message that go into the log: the trace of a deep recursion has thousands of lines that are alike. */
const MAX_MESSAGE_CHARS = 64 * 1024;
/** Builds, substitutions and waits followed at once; Nix runs a few hundred at most. */
const MAX_ACTIVITIES = 20_000;
/** Length of a store path: its name has 211 characters at most. */
const MAX_PATH_CHARS = 300;
/** Length of a phase's name, which the builder chooses. */
const MAX_PHASE_CHARS = 64;

/**
 * A push parser for standard error of Nix under `--log-format internal-json`, versions 2.8 to 2.34 and alike. It never
 * throws, whatever a builder prints. Builders can forge messages and downloads, but neither the start of a build nor
 * `raw_msg`; states therefore come only from those, and from the process's end.
 */
export class NixLog {
  readonly #book: DerivationBook;
  readonly #edges: Plan["edges"];
  readonly #out: NixOutput[] = [];
  readonly #builds = new Map<string, string>();
  readonly #waiting = new Map<string, string[]>();
  readonly #substitutes = new Map<string, string>();
  readonly #transfers = new Transfers();
  readonly #errors: string[] = [];
  readonly #tails = new LogTails();
  /** What Nix showed with its first error: its trace. */
  #trace: readonly string[] = [];
  #firstFailure: NixFirstFailure | undefined;
  /** Builds that ended and whose outcome is not known yet, oldest first. */
  readonly #ended = new Set<string>();
  /** Builds that only Nix's counter of successes calls built. */
  readonly #counted = new Set<string>();
  #buildsActivity = "";
  #successCount = 0;
  #unnamedTimeout: (Verdict & { state: "timeout" }) | undefined;
  #interrupted = false;
  #lastProgress = "";

  /** With a plan, states and totals cover all of it from the start; without one, they grow with the stream. */
  constructor(plan?: Plan) {
    this.#book = new DerivationBook(plan);
    this.#edges = plan?.edges ?? [];
  }

  /** The states and counters before the first line. */
  begin(): NixOutput[] {
    for (const derivation of this.#book.all()) this.#out.push({ kind: "derivation", derivation });
    return this.#drain();
  }

  /** Reads one line without its newline. `atMs` is milliseconds since the epoch. */
  line(text: string, atMs: number): NixOutput[] {
    const event = decodeLine(text);
    if (event.action === "plain") this.#log(event.text);
    else if (event.action === "message") this.#message(event, atMs);
    else if (event.action === "start") this.#start(event, atMs);
    else if (event.action === "result") this.#result(event);
    else this.#stop(event.id, atMs);
    return this.#drain();
  }

  /** The derivations about whose outputs the store should be asked after a failed build. */
  unsettled(): string[] {
    const doubtful = this.#book.all().filter(({ drv, state }) => state === "building" || this.#counted.has(drv));
    const fetched = this.#book.all().filter(({ state }) => state === "substituting" || state === "substituted");
    return [...doubtful, ...fetched].map(({ drv }) => drv);
  }

  /** Error messages that Nix itself sent, without colours and traces; at most the first 20. */
  errors(): readonly string[] {
    return this.#errors;
  }

  /** Lines that Nix showed with its first error: where it happened and what led there, nearest to the error. Empty when it has one line alone. */
  trace(): readonly string[] {
    return this.#trace;
  }

  /** The first derivation that failed by itself, else the first whose end nobody saw. After {@link finish}. */
  firstFailure(): NixFirstFailure | undefined {
    if (this.#firstFailure !== undefined) return this.#firstFailure;
    const lost = this.#book.all().find(({ state }) => state === "lost");
    return lost === undefined ? undefined : { derivation: lost, lines: this.#tails.of(lost.drv) };
  }

  /** All derivations as they are known now. */
  derivations(): Derivation[] {
    return this.#book.all();
  }

  /** Settles every state. To be called once, after the last line. */
  finish(end: NixEnd): NixOutput[] {
    for (const drv of this.unsettled()) this.#settle(drv, end);
    for (const { drv, state } of this.#book.all()) {
      // Planned and not touched, yet the build succeeded: somebody else made it valid in the meantime.
      if (state === "planned" && end.exitCode === 0) this.#update(drv, { state: "cached" });
      if (state === "waiting") this.#update(drv, { state: end.exitCode === 0 ? "cached" : "planned" });
    }
    this.#failDependents();
    return this.#drain();
  }

  #start(event: StartEvent, atMs: number): void {
    const { id, type, fields } = event;
    const path = typeof fields[0] === "string" ? fields[0] : "";
    if (
      path.length > MAX_PATH_CHARS ||
      this.#builds.size + this.#waiting.size + this.#substitutes.size >= MAX_ACTIVITIES
    )
      return;
    if (type === ACTIVITY.build) this.#startBuild(event, path, atMs);
    else if (type === ACTIVITY.builds) this.#buildsActivity = id;
    else if (type === ACTIVITY.waiting) this.#startWaiting(event);
    else if (type === ACTIVITY.substitute) this.#startSubstitute(event, path, atMs);
    else if (type === ACTIVITY.copyPath) this.#startCopy(event);
    else if (type === ACTIVITY.fileTransfer) this.#transfers.startDownload(id, event.parent);
  }

  #startBuild({ id, text, level }: StartEvent, drv: string, atMs: number): void {
    this.#update(drv, { state: "building", startedAt: atMs });
    if (this.#book.get(drv) === undefined) return;
    this.#builds.set(id, drv);
    this.#ended.delete(drv);
    if (level <= MAX_LEVEL) this.#log(text, drv);
  }

  #startWaiting({ id, text }: StartEvent): void {
    const reason = stripColour(text).slice(0, MAX_REASON_CHARS);
    // "waiting for lock on '…'" names outputs, "waiting for a machine to build '…'" the derivation.
    const paths = [...reason.matchAll(/'([^']+)'/g)].map(([, path = ""]) => path);
    const drvs = new Set(paths.flatMap((path) => this.#book.owner(path) ?? []));
    const held = [...drvs].filter((drv) => this.#book.get(drv)?.state === "planned");
    this.#waiting.set(id, held);
    for (const drv of held) this.#update(drv, { state: "waiting", reason });
    this.#log(text);
  }

  #startSubstitute({ id }: StartEvent, path: string, atMs: number): void {
    this.#transfers.startCopy(id);
    const drv = this.#book.owner(path);
    if (drv === undefined) return;
    this.#substitutes.set(id, drv);
    this.#update(drv, { state: "substituting", startedAt: this.#book.get(drv)?.startedAt ?? atMs });
  }

  #startCopy({ id, level, text }: StartEvent): void {
    this.#transfers.startCopy(id);
    if (level <= MAX_LEVEL) this.#log(text);
  }

  #result({ id, type, fields }: Extract<NixEvent, { action: "result" }>): void {
    const [first, second] = fields;
    const drv = this.#builds.get(id);
    if (type === RESULT.logLine || type === RESULT.postBuildLogLine) {
      if (typeof first !== "string") return;
      if (drv !== undefined) this.#tails.add(drv, first);
      this.#log(drv === undefined ? first : `${this.#book.label(drv)}> ${first}`, drv);
    } else if (type === RESULT.setPhase && drv !== undefined && typeof first === "string") {
      this.#update(drv, { phase: first.slice(0, MAX_PHASE_CHARS) });
    } else if (type === RESULT.progress && typeof first === "number" && typeof second === "number") {
      if (id === this.#buildsActivity) this.#successCount = first;
      this.#transfers.progress(id, first, second);
    }
  }

  #stop(id: string, atMs: number): void {
    this.#transfers.stop(id);
    const drv = this.#builds.get(id);
    if (drv !== undefined) this.#stopBuild(id, drv, atMs);
    for (const waiting of this.#waiting.get(id) ?? []) {
      if (this.#book.get(waiting)?.state === "waiting") this.#update(waiting, { state: "planned" });
    }
    this.#waiting.delete(id);
    const substituted = this.#substitutes.get(id);
    if (substituted === undefined) return;
    this.#substitutes.delete(id);
    // A derivation with several outputs is there when the last of them is.
    if (![...this.#substitutes.values()].includes(substituted)) {
      this.#update(substituted, { state: "substituted", endedAt: atMs });
    }
  }

  #stopBuild(id: string, drv: string, atMs: number): void {
    this.#builds.delete(id);
    const building = this.#book.get(drv)?.state === "building";
    this.#update(drv, { endedAt: atMs });
    if (!building) return;
    this.#ended.add(drv);
    // `stop` carries no outcome. Nix counts a success before it stops the activity and never counts a failure, so that
    // as many uncounted successes as unexplained ends means that all of them are built.
    if (this.#successCount - this.#counted.size < this.#ended.size) return;
    for (const built of this.#ended) {
      this.#counted.add(built);
      this.#update(built, { state: "built" });
    }
    this.#ended.clear();
  }

  #message({ level, text, raw }: Extract<NixEvent, { action: "message" }>, atMs: number): void {
    const plain = stripColour(text);
    const planned = raw === undefined ? /^ {2}(\/\S+\.drv)$/.exec(plain)?.[1] : undefined;
    // Nix prints its plan before the first build; afterwards such a line comes from a builder.
    if (planned !== undefined && this.#buildsActivity === "" && this.#book.get(planned) === undefined) {
      this.#update(planned, { state: "planned" });
    }
    const said = clip(text);
    if (level <= MAX_LEVEL) this.#log(raw === undefined && plain.startsWith("error") ? `[unverified] ${said}` : said);
    if (raw === undefined || level !== 0) return;
    const error = stripColour(raw);
    if (this.#errors.length === 0) this.#trace = traceOf(plain, error);
    if (this.#errors.length < MAX_ERRORS) this.#errors.push(error.slice(0, MAX_ERROR_CHARS));
    const verdict = readVerdict(raw);
    if (verdict !== undefined) this.#judge(verdict, raw, atMs);
  }

  #judge(verdict: Verdict, raw: string, atMs: number): void {
    if (verdict.state === "interrupted") {
      this.#interrupted = true;
      return;
    }
    const drv = verdict.drv ?? [...this.#ended].at(-1);
    if (drv === undefined) {
      if (verdict.state === "timeout") this.#unnamedTimeout = { ...verdict, state: "timeout" };
      return;
    }
    const known = this.#book.get(drv);
    if (known !== undefined && isFailure(known.state)) return;
    this.#ended.delete(drv);
    this.#counted.delete(drv);
    const { state, reason, exitCode } = verdict;
    const endedAt = known?.startedAt === undefined ? {} : { endedAt: known.endedAt ?? atMs };
    // The hashes, or which output differs: what the builder printed does not say it.
    if (state === "hash-mismatch" || state === "not-deterministic")
      for (const line of raw.split("\n").slice(1)) this.#tails.add(drv, line.trim());
    this.#update(drv, { state, reason, ...endedAt, ...(exitCode === undefined ? {} : { exitCode }) });
  }

  #settle(drv: string, { exitCode, atMs, valid }: NixEnd): void {
    const state = this.#book.get(drv)?.state;
    const fetched = state === "substituting" || state === "substituted";
    const proven = valid === undefined ? this.#counted.has(drv) || state === "substituted" : valid.has(drv);
    const endedAt = this.#book.get(drv)?.endedAt ?? atMs;
    if (exitCode === 0 || proven) {
      this.#update(drv, { state: fetched ? "substituted" : "built", endedAt });
    } else if (this.#interrupted) {
      this.#update(drv, { state: "cancelled", endedAt });
    } else if (this.#unnamedTimeout !== undefined) {
      this.#update(drv, { state: "timeout", reason: this.#unnamedTimeout.reason, endedAt });
      this.#unnamedTimeout = undefined;
    } else {
      this.#update(drv, { state: "lost", reason: "Nix ended without saying what became of it", endedAt });
    }
  }

  /** Nix names only some of the derivations that cannot be built any more; the plan knows all of them. */
  #failDependents(): void {
    const usersOf = Map.groupBy(this.#edges, ([, dependency]) => dependency);
    const failed = this.#book.all().filter(({ state }) => isFailure(state) && state !== "lost");
    const todo = failed.map(({ drv }) => drv);
    for (let drv = todo.pop(); drv !== undefined; drv = todo.pop()) {
      for (const [user] of usersOf.get(drv) ?? []) {
        if (this.#book.get(user)?.state !== "planned") continue;
        this.#update(user, { state: "dependency-failed", reason: `${this.#book.label(drv)} failed` });
        todo.push(user);
      }
    }
  }

  #update(drv: string, change: Partial<Derivation>): void {
    const isNew = this.#book.get(drv) === undefined;
    if (isNew && (this.#book.count >= LIMITS.derivations || drv.length > MAX_PATH_CHARS)) return;
    const derivation = this.#book.update(drv, change);
    this.#out.push({ kind: "derivation", derivation });
    const { state } = derivation;
    if (isFailure(state) && state !== "dependency-failed" && state !== "lost")
      this.#firstFailure ??= { derivation, lines: [...this.#tails.of(drv)] };
  }

  #log(text: string, drv?: string): void {
    if (text !== "" || drv !== undefined) this.#out.push({ kind: "log", text, ...(drv === undefined ? {} : { drv }) });
  }

  #drain(): NixOutput[] {
    const out = this.#out.splice(0);
    const progress = this.#book.progress(this.#transfers.bytes, this.#transfers.expectedBytes);
    const key = Object.values(progress).join();
    if (key !== this.#lastProgress) out.push({ kind: "progress", progress });
    this.#lastProgress = key;
    return out;
  }
}

/** A message with its middle cut out where it is very long. */
function clip(text: string): string {
  if (text.length <= MAX_MESSAGE_CHARS) return text;
  const half = MAX_MESSAGE_CHARS / 2;
  return `${text.slice(0, half)}\n[… ${text.length - 2 * half} characters left out …]\n${text.slice(-half)}`;
}

/** The lines of a message that hold more than its error. 2.8 shows the error first and then what led to it, newer versions the other way round. */
function traceOf(message: string, error: string): readonly string[] {
  const lines = message.split("\n").filter((line) => line.trim() !== "");
  if (lines.length <= 1) return [];
  const isFirst = message.replace(/^error: /, "").startsWith(error);
  const near = isFirst ? lines.slice(0, LIMITS.reasonLines) : lines.slice(-LIMITS.reasonLines);
  return near.map((line) => line.slice(0, LIMITS.reasonLineCharacters));
}
