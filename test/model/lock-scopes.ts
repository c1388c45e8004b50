import type { LockScope } from "./lock-world.ts";

const X = { locks: ["x"] };

/** A scope that is small but for what it says. */
function scope(name: string, over: Partial<LockScope>): LockScope {
  return {
    name,
    lanes: [[X], [X]],
    attempts: 0,
    faulty: [0, 1],
    lateCount: 0,
    checks: false,
    isUnseen: false,
    cancelCount: 0,
    ...over,
  };
}

/** What a test explores in full. */
export function lockScopes(): LockScope[] {
  return [
    scope("two deployments, one lock, two attempts", { attempts: 2 }),
    scope("two deployments, one lock, late copies", { lateCount: 1, checks: true, faulty: [] }),
    scope("two deployments, one lock, effects whose end nobody saw", { isUnseen: true }),
    scope("two jobs of a deployment that overtake each other, and one of another", {
      lanes: [[{ ...X, hold: true }, X], [X]],
      faulty: [0],
    }),
    scope("two deployments, one lock, jobs that are cancelled", { cancelCount: 1 }),
    scope("three deployments, two locks, one of them needs both", {
      lanes: [[X], [{ locks: ["y", "x"] }], [{ locks: ["y"] }]],
      faulty: [1],
    }),
  ];
}

/** What `npm run model` explores besides. */
export function largeLockScopes(): LockScope[] {
  return [
    scope("two deployments, one lock, late copies of both", { lateCount: 1, checks: true }),
    scope("two jobs of a deployment that overtake each other, and one of another, late copies", {
      lanes: [[{ ...X, hold: true }, X], [X]],
      faulty: [],
      lateCount: 1,
      checks: true,
    }),
  ];
}

/** A scope by its name. */
export function lockScopeNamed(name: string): LockScope {
  const found = [...lockScopes(), ...largeLockScopes()].find((one) => one.name === name);
  if (found === undefined) throw new Error(`no scope "${name}"`);
  return found;
}
