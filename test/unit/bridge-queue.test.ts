import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openQueue, QUEUE_LIMIT_COUNT } from "@plumule/bridge";

const target = { url: "https://broker.example", namespace: "acme", hook: "git" };
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-queue-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe("a queue of deliveries", () => {
  it("keeps a delivery across processes until it is settled", async () => {
    const added = await (await openQueue(folder)).add(target, "{}", new Date(1_000));
    const later = await openQueue(folder);
    expect(await later.list()).toEqual([added.ok && added.value]);
    await later.settle((await later.list())[0]!.id);
    expect(await later.list()).toEqual([]);
  });

  it("lists older deliveries first, also across a change in the number of digits", async () => {
    for (const at of [10_000_000_000_000, 5, 9_999_999_999_999])
      await (await openQueue(folder)).add(target, String(at), new Date(at));
    expect((await (await openQueue(folder)).list()).map(({ body }) => body)).toEqual([
      "5",
      "9999999999999",
      "10000000000000",
    ]);
  });

  it("keeps the order of deliveries of the same moment", async () => {
    const queue = await openQueue(folder);
    const bodies = ["a", "b", "c", "d", "e"];
    for (const body of bodies) await queue.add(target, body, new Date(0));
    expect((await queue.list()).map(({ body }) => body)).toEqual(bodies);
  });

  it("is private to its user", async () => {
    const queue = await openQueue(join(folder, "new"));
    await queue.add(target, "{}", new Date());
    const [name] = await readdir(join(folder, "new"));
    expect((await stat(join(folder, "new"))).mode & 0o777).toBe(0o700);
    expect((await stat(join(folder, "new", name!))).mode & 0o777).toBe(0o600);
  });

  it("sets a file aside that it cannot read, and goes on with the others", async () => {
    const queue = await openQueue(folder);
    await writeFile(join(folder, "push_0_x.json"), "{ half a docum");
    await queue.add(target, "{}", new Date());
    expect(await queue.list()).toHaveLength(1);
    expect(await readdir(folder)).toContain("push_0_x.json.unreadable");
  });

  it("ignores what a crash left half written", async () => {
    await writeFile(join(folder, "push_0_x.json.unfinished"), "{");
    expect(await (await openQueue(folder)).list()).toEqual([]);
  });

  it("has a limit, so that a broker that is away cannot fill the disk", async () => {
    const queue = await openQueue(folder);
    await Promise.all(
      Array.from({ length: QUEUE_LIMIT_COUNT }, (_, number) => writeFile(join(folder, `push_${number}.json`), "{}")),
    );
    expect(await queue.add(target, "{}", new Date())).toMatchObject({ ok: false, code: "queue-full" });
  });

  it("numbers pushes upwards, in another process and with a clock that was set back too", async () => {
    const numbers: number[] = [];
    for (const at of [5_000, 5_000, 1_000, 9_000])
      numbers.push(await (await openQueue(folder)).nextNumber(new Date(at)));
    expect(numbers).toEqual([5_000, 5_001, 5_002, 9_000]);
    await writeFile(join(folder, "number"), "rubbish");
    expect(await (await openQueue(folder)).nextNumber(new Date(7))).toBe(7);
  });
});
