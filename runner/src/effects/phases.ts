const MARK = Buffer.from("@nix {");
/** Longest line that is held back to see whether it names a phase, bytes. */
const LINE_BYTES = 4_096;

/**
 * Puts the phases of an effect into its log as lines for people. Builders of nixpkgs name them as Nix reads it (`@nix { "action": "setPhase", … }`);
 * everything else passes as it comes, with nothing held back but a beginning of such a line.
 */
export function createPhaseReader(log: (bytes: Uint8Array) => void): { push(chunk: Uint8Array): void; end(): void } {
  let held = Buffer.alloc(0);
  let isAtStart = true;
  const push = (chunk: Uint8Array): void => {
    let rest = Buffer.concat([held, chunk]);
    held = Buffer.alloc(0);
    const passed: Uint8Array[] = [];
    while (rest.length > 0) {
      const end = rest.indexOf(0x0a) + 1;
      const line = end === 0 ? rest : rest.subarray(0, end);
      const start = line.subarray(0, MARK.length);
      const isMarked = isAtStart && MARK.subarray(0, start.length).equals(start);
      if (isMarked && end === 0 && line.length < LINE_BYTES) {
        held = line;
        break;
      }
      const phase = isMarked && end > 0 ? phaseOf(line.toString()) : null;
      passed.push(phase === null ? line : Buffer.from(`[plumule] ${phase}\n`));
      isAtStart = end > 0;
      rest = rest.subarray(line.length);
    }
    if (passed.length > 0) log(Buffer.concat(passed));
  };
  return {
    push,
    end() {
      if (held.length > 0) log(held);
    },
  };
}

function phaseOf(line: string): string | null {
  try {
    const said = JSON.parse(line.slice(MARK.length - 1)) as { action?: unknown; phase?: unknown };
    return said.action === "setPhase" && typeof said.phase === "string" ? said.phase : null;
  } catch {
    return null;
  }
}
