// kill -9 of workerd under load, again and again: what the upstream saw is on record, what a client received in full is on record in
// full, and what had no end says so.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { chosen } from "../chosen.ts";
import { type GateRig, type Instance, type Line, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";

const CRASHES = 3;
const CALLERS = 6;
/** Of a quota that instances share, in all. */
const LAST = 25;
let rig: GateRig;
let folder: string;

beforeAll(async () => {
  const quotas = { last: { per: "human", upstreams: ["strict"], calls: LAST } } as const;
  // Of calls that a crash has killed nobody says that they are over: they hold their places for 30 s.
  rig = await startGateRig({ limits: { concurrency: 100 } }, { quotas });
  folder = await mkdtemp(join(tmpdir(), "portcullis-crash-"));
});
afterAll(async () => {
  await rig.close();
  await rm(folder, { recursive: true, force: true });
});

/** Calls until told to stop; notes the targets whose answer came in full. */
async function callOnAndOn(who: Instance, name: string, isOver: () => boolean, whole: string[]): Promise<void> {
  for (let n = 0; !isOver(); n++) {
    const target = `/hostile/work?by=${name}&n=${n}`;
    const heard = await rig.call(who, target, { method: "PUT", body: `${name} ${n}` }).catch(() => undefined);
    if (heard === undefined) return;
    if (heard.status === 200 && heard.isWhole) whole.push(target);
  }
}

describe("kill -9 under load", () => {
  it("loses no record, and verifies", async () => {
    const random = chosen();
    const who = await rig.provision();
    const whole: string[] = [];
    rig.upstream.on("/endless", (_request, answer) => {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      const timer = setInterval(() => answer.write("data: on and on\n\n"), 5);
      answer.on("close", () => clearInterval(timer));
    });
    for (let crash = 0; crash < CRASHES; crash++) {
      let isOver = false;
      const before = whole.length;
      const callers = Array.from({ length: CALLERS }, (_, i) => callOnAndOn(who, `${crash}.${i}`, () => isOver, whole));
      const endless = rig.call(who, `/hostile/endless?n=${crash}`).catch(() => undefined);
      // In any moment, once calls come through.
      await rig.upstream.until("/endless", ({ target }) => target.endsWith(`n=${crash}`));
      await expect.poll(() => whole.length, { timeout: 20_000 }).toBeGreaterThan(before + CALLERS);
      await pause(random.between(0, 400));
      rig.crash();
      isOver = true;
      await Promise.all(callers);
      expect((await endless)?.isWhole ?? false).toBe(false);
      await rig.restart({});
    }

    // A call wakes the object; whatever it left without an end is lost, and says so.
    await rig.call(who, "/hostile/last");
    await rig.recorded(who, "/hostile/last");
    // Not at once: a Worker that had lived might have taken its call up again.
    const isOpen = (all: readonly Line[]) => {
      const ended = new Set(all.filter(({ type }) => type === "answer").map((line) => line["call"]));
      return all.some(({ type, seq }) => type === "call" && !ended.has(seq));
    };
    let lines = await rig.records(who, () => true);
    for (const endMs = Date.now() + 30_000; isOpen(lines) && Date.now() < endMs; await pause(100))
      lines = await rig.records(who, () => true);
    const calls = new Map(lines.filter(({ type }) => type === "call").map((line) => [line["target"], line]));
    const answers = new Map(lines.filter(({ type }) => type === "answer").map((line) => [line["call"], line]));
    const seen = rig.upstream.requests().map(({ target }) => `/hostile${target}`);
    expect(seen.filter((target) => !calls.has(target))).toEqual([]);
    for (const target of whole) expect(answers.get(calls.get(target)?.seq)).toMatchObject({ outcome: "complete" });
    const outcomes = [...calls.values()].map(({ seq }) => answers.get(seq)?.["outcome"]);
    expect(outcomes).not.toContain(undefined);
    for (let crash = 0; crash < CRASHES; crash++)
      expect(answers.get(calls.get(`/hostile/endless?n=${crash}`)?.seq)).toMatchObject({ outcome: "lost" });

    await pullBucket(await rig.bucket(), folder);
    const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
    if (!keys.ok) throw new Error(keys.error);
    const report = await verifyFolder(folder, { keys: keys.value, issuer: rig.origin, nowMs: Date.now() });
    expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
    expect(report.ok).toBe(true);
  }, 90_000);

  it("spends no more of what instances share than there is, and in the end all of it", async () => {
    const random = chosen();
    const members = [await rig.provision(), await rig.provision()];
    let n = 0;
    /** Its status; 0: nobody answered. */
    const ask = (who: Instance): Promise<number> =>
      rig.call(who, `/strict/rules/${++n}?limit=1`).then(
        ({ status }) => status,
        () => 0,
      );
    for (let crash = 0; crash < CRASHES; crash++) {
      const callers = [...members, ...members].map(async (who) => {
        while ((await ask(who)) !== 0) await pause(40);
      });
      await pause(random.between(150, 350));
      rig.crash();
      await Promise.all(callers);
      await rig.restart({});
    }
    // What crashes have left unused comes back when those who held it are asked: within about a second.
    for (let refusals = 0; refusals < 30; await pause(150))
      for (const who of members) refusals = (await ask(who)) === 429 ? refusals + 1 : 0;

    const records = await Promise.all(
      members.map(async (who, i) => {
        await rig.call(who, `/hostile/last?of=${i}`);
        return (await rig.recorded(who, `/hostile/last?of=${i}`)).lines;
      }),
    );
    const onRecord = records
      .flat()
      .filter(({ type, upstream }) => type === "call" && upstream === "strict")
      .map((line) => line["target"]);
    expect(onRecord).toHaveLength(LAST);
    const seen = rig.upstream
      .requests()
      .flatMap(({ target }) => (target.startsWith("/rules/") ? [`/strict${target}`] : []));
    expect(seen.filter((target) => !onRecord.includes(target))).toEqual([]);
    expect(seen.length).toBeGreaterThan(0);
  }, 60_000);
});
