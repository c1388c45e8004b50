import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { cancelJob, setSchedule } from "@plumule/protocol";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { startEmbeddedBroker } from "../../cli/src/dev/embedded-broker.ts";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { CHROMIUM } from "../support/chromium.ts";

let broker: TestBroker;
let browser: Browser;
/** What the browser complained about: violations of the policy, errors of scripts, requests that failed. */
let complaints: string[] = [];

/** A fresh window, which remembers nothing. */
async function openWindow(options: BrowserContextOptions = {}): Promise<Page> {
  const page = await (await browser.newContext(options)).newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.addInitScript("addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))");
  return page;
}
/** Lets a job go on that waits for a file in its folder, whose name it wrote. */
function letGo(log: string | null): void {
  const [, folder] = /in (\S+)/.exec(log ?? "") ?? [];
  execFileSync("touch", [`${folder}/go`]);
}
const fragment = (): string => `#ns=test&token=${broker.token}`;
const shell = (script: string, more: object = {}): { task: { kind: "shell"; script: string } } => ({
  task: { kind: "shell", script },
  ...more,
});

describe.skipIf(CHROMIUM === undefined)("the page in Chromium", () => {
  beforeAll(async () => {
    execFileSync(process.execPath, ["scripts/page.mjs"]);
    broker = await startTestBroker();
    browser = await chromium.launch({ executablePath: CHROMIUM ?? "", args: ["--no-sandbox"] });
  });
  afterEach(async () => {
    await Promise.all(browser.contexts().map((context) => context.close()));
    complaints = [];
  });
  afterAll(async () => {
    await browser?.close();
    await broker?.stop();
  });

  it("says how to open it to somebody without a token", async () => {
    const page = await openWindow();
    await page.goto(broker.url);
    await page.getByText("#ns=<namespace>&token=<token>").waitFor();
    // That this broker gives no token of its own is told by a 404, which the browser notes.
    expect(complaints.filter((one) => !one.includes("404"))).toEqual([]);
  });

  it("shows deployments and runners as they come, and keeps the token out of the address", async () => {
    const page = await openWindow();
    await page.goto(`${broker.url}/${fragment()}`);
    await page.getByText("● live").waitFor();
    expect(page.url()).toBe(`${broker.url}/`);
    await page.getByText("No deployment yet").waitFor();
    await page.getByText("No runner yet").waitFor();
    await broker.startRunner({ name: "king" });
    const runner = page.getByRole("list", { name: "Runners" }).getByRole("listitem");
    await runner.getByText("king").waitFor();
    await runner.getByText("online").waitFor();
    const job = await broker.submit("mail", shell("exit 3", { summary: "sync r1" }));
    const row = page.getByRole("list", { name: "Deployments" }).getByRole("listitem").filter({ hasText: "mail" });
    await row.getByText("failed").waitFor();
    await row.getByRole("link", { name: "mail" }).click();
    await page.getByText("exit-code").waitFor();
    expect(page.url()).toBe(`${broker.url}/d/mail`);
    await page.goBack();
    await row.waitFor();
    await page.goto(`${broker.url}/j/${job.id}`);
    await page.getByRole("heading", { name: "mail" }).waitFor();
    expect(complaints).toEqual([]);
  });

  it("says of a job that waits what each runner lacks, label by label, when its reader asks", async () => {
    const job = await broker.submit("arm", shell("true", { requires: { systems: ["riscv64-linux"] } }));
    const page = await openWindow({ viewport: { width: 360, height: 700 } });
    await page.goto(`${broker.url}/j/${job.id}${fragment()}`);
    await page.getByText("Which runner could take it?").click();
    await page.getByText("king lacks system riscv64-linux").click();
    await page.getByRole("row", { name: "missing system riscv64-linux" }).waitFor();
    await page.getByRole("row", { name: "enough connection online online" }).waitFor();
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    expect(complaints).toEqual([]);
  });

  it("says of a job that waits for a lock who has it, and that it goes on", async () => {
    const locks = { locks: ["host:king"], requires: { labels: ["nobody"] } };
    const holder = await broker.submit("holder", shell("true", locks));
    await broker.until(holder.id, ({ job }) => job.locks?.held === true);
    const waiter = await broker.submit("waiter", shell("true", locks));
    const page = await openWindow();
    await page.goto(`${broker.url}/j/${waiter.id}${fragment()}`);
    await page.getByText(`Waits for lock host:king, used by job ${holder.id} of deployment holder.`).waitFor();
    await broker.ask(cancelJob, { params: { job: holder.id }, body: {} });
    await page.getByText("host:king (held)").waitFor();
    await broker.ask(cancelJob, { params: { job: waiter.id }, body: {} });
    expect(complaints).toEqual([]);
  });

  it("shows the schedules that a push has brought, the jobs of one, and that it is paused", async () => {
    const { url, commit } = await makeRepository(broker.folder, {
      ".radicle/plumule.yaml":
        "schedules: { nightly: { cron: 0 3 * * *, jobs: deep } }\njobs: { a: { shell: echo A }, deep: { on: schedule, shell: echo DEEP } }\n",
    });
    const body = {
      task: { kind: "repository" as const },
      source: { repository: url, commit, ref: "refs/heads/main" },
      summary: "prune",
    };
    const page = await openWindow();
    await broker.submit("garden", body);
    await page.goto(`${broker.url}/d/garden${fragment()}`);
    const schedule = page.getByRole("list", { name: "Schedules" }).getByRole("listitem");
    await schedule.getByText("next").waitFor();
    expect(await schedule.innerText()).toMatch(/nightly on main\s+0 3 \* \* \*\s+next/);
    const job = await broker.submit("garden", { ...body, task: { ...body.task, schedule: "nightly" } });
    await page.getByRole("link", { name: "nightly: prune" }).first().waitFor();
    await page.getByText("DEEP", { exact: true }).waitFor();
    await broker.until(job.id, "succeeded");
    await broker.ask(setSchedule, { params: { deployment: "garden", schedule: "nightly" }, body: { paused: true } });
    await schedule.getByText("paused").waitFor();
    expect(complaints).toEqual([]);
  });

  it("follows a job with its log to the end, and shows what a job wrote as text", async () => {
    const script = [
      "printf '\\033[31mred\\033[0m \\033]0;title\\007<b>bold</b> \\342\\200\\256evil\\n'",
      "until [ -e go ]; do sleep 0.05; done",
      "seq 300; echo the end",
    ].join("; ");
    const job = await broker.submit("web", shell(`echo "in $PWD"; ${script}`, { summary: "<i>r2</i>" }));
    const page = await openWindow({ viewport: { width: 360, height: 700 } });
    await page.goto(`${broker.url}/j/${job.id}${fragment()}`);
    const log = page.getByRole("log");
    await log.getByText("<b>bold</b> \\u202eevil").waitFor();
    expect(await log.locator(".fg-1").textContent()).toBe("red");
    expect(await log.textContent()).not.toContain("title");
    await page.getByText("running", { exact: false }).first().waitFor();
    await page.getByRole("link", { name: "<i>r2</i>" }).first().waitFor();
    letGo(await log.textContent());
    await log.getByText("the end").waitFor();
    await page.getByText(/^Complete, .* as signed\.$/).waitFor();
    await page.locator(".job").getByText("succeeded").waitFor();
    expect(await log.evaluate((element) => element.scrollTop + element.clientHeight >= element.scrollHeight - 1)).toBe(
      true,
    );
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    expect(complaints).toEqual([]);
  });

  it("shows a log that was made to attack its reader as text that does nothing", async () => {
    const attack = [
      "<img src=x onerror=alert(1)><script>alert(2)</script><a href=javascript:alert(3)>click</a>",
      "\\033]52;c;cm0gLXJmIC8=\\007\\033]8;;javascript:alert(4)\\033\\\\link\\033]8;;\\033\\\\",
      "\\033]0;your bank\\007\\033P1;1|x\\033\\\\\\033_x\\033\\\\\\033[2J\\033[1;1H\\302\\233" + "2Jcsi",
      "invoice\\342\\200\\256fdp.exe\\342\\201\\246",
      "one\\rtwo\\rthree",
    ];
    const lines = attack.map((line) => `printf '${line}\\n'`).join("; ");
    const long = "head -c 1000000 /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/zero | tr '\\0' '\\r'; echo";
    const job = await broker.submit("web", shell(`${long}; ${lines}; echo the end`));
    const page = await openWindow();
    page.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
    await page.goto(`${broker.url}/j/${job.id}${fragment()}`);
    const log = page.getByRole("log");
    await log.getByText("the end").waitFor();
    const text = (await log.textContent()) ?? "";
    expect(text).toContain("<img src=x onerror=alert(1)><script>alert(2)</script>");
    expect(text).toContain("invoice\\u202efdp.exe\\u2066");
    expect(text).toContain("\nlink\n");
    expect(text).toContain("\n2Jcsi\n");
    expect(text).toContain("\nthree\n");
    expect(text).not.toMatch(/javascript:alert\(4\)|cm0gLXJm|your bank|[^\P{Cc}\n\t]|[\u202a-\u202e\u2066-\u2069]/u);
    expect(await log.locator("img, script, a, iframe, svg").count()).toBe(0);
    expect(await page.title()).toMatch(/^\w+ · web$/);
    expect(complaints).toEqual([]);
  });

  it("is served with a policy under which nothing foreign or inline runs", async () => {
    for (const path of ["/", "/j/x", "/main.js"]) {
      const { headers } = await fetch(`${broker.url}${path}`);
      const policy = (headers.get("content-security-policy") ?? "").split("; ");
      expect(policy).toEqual(
        expect.arrayContaining([
          "default-src 'none'",
          "script-src 'self'",
          "style-src 'self'",
          "base-uri 'none'",
          "frame-ancestors 'none'",
          "form-action 'none'",
          "require-trusted-types-for 'script'",
        ]),
      );
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("referrer-policy")).toBe("no-referrer");
      expect(headers.get("strict-transport-security")).toContain("max-age=63072000");
      expect(headers.get("cross-origin-opener-policy")).toBe("same-origin");
      expect(headers.get("cross-origin-resource-policy")).toBe("same-origin");
      expect(headers.get("permissions-policy")).toContain("camera=()");
    }
  });

  it("lets go of the end of the log when its reader scrolls up, and takes it up again", async () => {
    const script = 'echo "in $PWD"; seq 500; until [ -e go ]; do sleep 0.05; done; echo the end';
    const job = await broker.submit("web", shell(script));
    const page = await openWindow();
    await page.goto(`${broker.url}/j/${job.id}${fragment()}`);
    const log = page.getByRole("log");
    await log.getByText("500", { exact: true }).waitFor();
    const follow = page.getByRole("button", { name: /^Follow/ });
    expect(await follow.getAttribute("aria-pressed")).toBe("true");
    await log.evaluate((element) => element.scrollTo(0, 0));
    await expect.poll(() => follow.getAttribute("aria-pressed")).toBe("false");
    letGo(await log.textContent());
    await page.getByRole("button", { name: "Follow (1 new)" }).waitFor();
    expect(await log.evaluate((element) => element.scrollTop)).toBe(0);
    await page.keyboard.press("f");
    await expect.poll(() => follow.textContent()).toBe("Follow");
    expect(await log.evaluate((element) => element.scrollTop)).toBeGreaterThan(0);
    expect(complaints).toEqual([]);
  });

  it("says since when it is cut off, and what a resume brought", async () => {
    const page = await openWindow({ colorScheme: "dark" });
    await page.goto(`${broker.url}/d/web${fragment()}`);
    await page.getByText("● live").waitFor();
    await broker.restart(async () => {
      await page.getByText(/offline since .*, showing the last known/).waitFor();
      await page.getByRole("heading", { name: "web" }).waitFor();
    });
    await page.getByText(/live, resumed \+\d+/).waitFor();
    // The browser notes each attempt to reach a broker that is away.
    expect(complaints.filter((one) => !one.includes("net::ERR_CONNECTION"))).toEqual([]);
  });

  it("needs no token on the machine of a developer, where the broker gives it one", async () => {
    const { namespace, token, stateDir, adminToken } = {
      namespace: "test",
      token: broker.token,
      stateDir: join(broker.folder, "broker"),
      adminToken: "another",
    };
    await broker.restart(async () => {
      const local = await startEmbeddedBroker({ port: 0, stateDir, adminToken, page: { namespace, token } });
      if ("refused" in local) throw new Error(local.refused);
      try {
        const page = await openWindow();
        await page.goto(local.url);
        await page.getByText("● live").waitFor();
        await page.getByRole("link", { name: "web" }).waitFor();
        const asked = (headers: Record<string, string>): Promise<Response> =>
          fetch(`${local.url}/.well-known/plumule-page.json`, { headers });
        expect((await asked({})).status).toBe(200);
        expect((await asked({ "sec-fetch-site": "cross-site" })).status).toBe(404);
        expect(complaints).toEqual([]);
      } finally {
        await local.stop();
      }
    });
  });
});
