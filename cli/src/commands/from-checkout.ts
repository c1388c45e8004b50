import { Command } from "commander";
import { act } from "../context.ts";
import { misuse } from "../failure.ts";

/** What stands for `plumule dev` in the package, which has neither broker nor page. */
export function devCommand(): Command {
  return fromCheckout("dev", "start broker, page and one runner on this machine");
}

/** What stands for `plumule demo` in the package. */
export function demoCommand(): Command {
  return fromCheckout("demo", "see what plumule does, in a minute");
}

function fromCheckout(name: string, summary: string): Command {
  return new Command(name)
    .summary(`${summary} (from the repository)`)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(
      act(async () =>
        misuse(
          `\`plumule ${name}\` runs from the repository alone: this package has neither broker nor page`,
          `Clone plumule and run \`npm ${name === "dev" ? "start" : "run demo"}\` there.`,
        ),
      ),
    );
}
