/**
 * What one step cost, summed over its requests. `object` is the class, `step` the method that was called, or `open` for what an object
 * does when it comes into memory. The Worker itself is the object `edge`, its steps are the last parts of paths. Rows are those that the platform bills, by table; an alarm that is set is
 * a row of the table `alarm`.
 */
export type Tally = {
  object: string;
  step: string;
  requestCount: number;
  rowsRead: number;
  rowsWritten: Record<string, number>;
  /** How long calls of this step, and the work that they left behind, kept the object from resting, ms. */
  activeMs: number;
};
