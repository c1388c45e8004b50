/** Longest wait for another object, ms: beyond it the call counts as failed, since a call that hangs would keep this object awake. */
const CALL_MS = 15_000;

/** The answer of another object, or an error when it takes too long. */
export async function bounded<T>(call: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${CALL_MS} ms`)), CALL_MS);
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}
