// The last words of a test run, for people and machines alike: what was left out and why, then one plain line.

/**
 * A vitest reporter that ends the run with `N passed, N failed`, and `, N skipped` where tests were left out.
 * A test file that cannot be loaded and an error outside any test count as failed.
 */
export default class PlainReporter {
  /**
   * @param {readonly import("vitest/node").TestModule[]} modules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(modules, unhandledErrors) {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const results = tests.map((test) => ({ name: test.fullName, ...test.result() }));
    const broken = modules.flatMap((module) => [module, ...module.children.allSuites()]).filter(hasOwnErrors);
    const skipped = results.filter((result) => result.state === "skipped" || result.state === "pending");
    const passedCount = results.filter((result) => result.state === "passed").length;
    const failedCount =
      results.filter((result) => result.state === "failed").length + broken.length + unhandledErrors.length;
    const lines = skipped.map((result) => `skipped: ${result.name}${result.note ? `: ${result.note}` : ""}`);
    lines.push(
      `${passedCount} passed, ${failedCount} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`,
    );
    // Other reporters and vitest itself print after this point; what is written at exit stays last.
    process.once("exit", () => process.stdout.write(`\n${lines.join("\n")}\n`));
  }
}

/**
 * @param {import("vitest/node").TestModule | import("vitest/node").TestSuite} collection
 * @returns {boolean} whether it failed by itself, in loading or in a hook, rather than through a test
 */
function hasOwnErrors(collection) {
  return collection.errors().length > 0;
}
