/**
 * Runs `change` in one transaction: rows, alarm and outbox are one unit, and a throw takes all of it back.
 * A promise is refused by the type: what follows its first `await` would run outside the transaction without an error.
 */
export function transact<T>(
  storage: DurableObjectStorage,
  change: () => T extends PromiseLike<unknown> ? never : T,
): T {
  return storage.transactionSync<T>(change);
}
