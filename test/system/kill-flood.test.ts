// A kill in the middle of hundreds of calls, 1,000 where it is of everything: what the upstream, the agents, the transcripts and the receipt say is one story.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";
import { contradictions, SHORT_KINDS, startFlood } from "./kill-flood.ts";
import { flip, killed, type SignedReceipt, serveEndless, settledFaults, startCopy, startStream } from "./kill-rig.ts";

const INSTANCES = 20;
const LATE = 60;

let rig: GateRig;
beforeAll(async () => {
  const limits = { concurrency: 2_000, refusalsRecordedPerMinute: 10_000 };
  rig = await startGateRig({ limits }, { flushAfterMs: 1_500, callsPerSecond: 100_000, burst: 100_000 });
});
afterAll(() => rig.close());

const SCOPE = JSON.stringify([{ type: "http", upstream: "hostile", operations: ["GET /{+path}", "PUT /{+path}"] }]);
async function provision(task: string): Promise<Instance> {
  const { key, access } = await rig.h.provision({ form: { task, authorization_details: SCOPE } });
  return { key, access, id: key.thumbprint };
}
const provisionAll = (count: number, task: (i: number) => string): Promise<Instance[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => provision(task(i))));

interface Selected {
  readonly reach: string;
  readonly target: Readonly<Record<string, string>>;
  readonly inReach: readonly Instance[];
}

async function attack(calls: number, callers: readonly Instance[], { reach, target, inReach }: Selected) {
  const flood = await startFlood(rig, callers, calls / 2);
  // Half of these have not begun when the switch comes.
  const beginning = flood.begin(calls / 2, SHORT_KINDS, callers);
  await pause(100);
  const killing = flip(rig, "kill", reach, target).then((answer) => ({ answer, atMs: Date.now() }));
  await beginning;
  const { answer, atMs } = await killing;
  expect([answer.status, answer.json["status"]]).toEqual([201, "done"]);
  await flood.begin(LATE, ["plain", "sse", "upload"], inReach);
  const ids = new Set(inReach.map(({ id }) => id));
  // The upstream has more to say to each of them.
  for (const endMs = Date.now() + 15_000; Date.now() < endMs && flood.openOf(ids) > 0; ) await pause(20);
  expect(flood.openOf(ids)).toBe(0);
  await flood.over();
  const receipt = answer.json as unknown as SignedReceipt;
  const copy = await startCopy(rig, [...new Set(callers)]);
  let problems: string[] = ["never looked"];
  // What comes into R2 comes a moment later.
  for (const endMs = Date.now() + 15_000; Date.now() < endMs && problems.length > 0; await pause(300)) {
    await copy.pull();
    problems = contradictions(rig, copy, flood, receipt, { inReach: ids, answeredAtMs: atMs });
  }
  expect(problems.slice(0, 20)).toEqual([]);
  expect(receipt.cut).toBeGreaterThan(calls / 8);
  const reached = receipt.instances?.map(({ instance }) => instance) ?? [];
  expect([...ids].filter((id) => !reached.includes(id))).toEqual([]);
  expect(await copy.faults(receipt)).toEqual([]);
  await copy.close();
}

describe("in the middle of hundreds of calls", () => {
  it("one instance", async () => {
    const all = await provisionAll(INSTANCES, (i) => `one-${i}`);
    const [victim] = all as [Instance];
    // Half of the calls are the victim's.
    const callers = all.flatMap((who) => (who === victim ? [] : [victim, who]));
    await attack(500, callers, { reach: "instance", target: { instance: victim.id }, inReach: [victim] });
  });

  it("a task", async () => {
    const all = await provisionAll(INSTANCES, (i) => (i % 2 === 0 ? "doomed" : "spared"));
    const inReach = all.filter((_, i) => i % 2 === 0);
    await attack(500, all, { reach: "task", target: { task: "build-platform_doomed" }, inReach });
  });

  it("exactly one of 100 streaming instances", async () => {
    let isOver = false;
    serveEndless(rig, "/hundred", () => isOver);
    const all = await provisionAll(100, (i) => `hundred-${i % 7}`);
    const streams = await Promise.all(all.map((who, n) => startStream(rig, who, `/hostile/hundred?n=${n}`)));
    const victim = streams[42]!;
    const receipt = await killed(rig, "instance", { instance: victim.who.id });
    expect(receipt).toMatchObject({ reached: 1, idle: 0, cut: 1, instances: [{ instance: victim.who.id, cut: 1 }] });
    expect((await victim.ended)?.isWhole).toBe(false);
    await pause(300);
    expect(streams.filter(({ endedAtMs }) => endedAtMs > 0)).toEqual([victim]);
    const after = await Promise.all(all.map((who) => rig.call(who, "/hostile/after-one")));
    expect(after.map(({ status }) => status)).toEqual(all.map((who) => (who === victim.who ? 401 : 200)));
    isOver = true;
    const ends = await Promise.all(streams.map(({ ended }) => ended));
    expect(ends.filter((heard) => heard?.isWhole)).toHaveLength(99);
    const copy = await startCopy(rig, all);
    expect(await settledFaults(copy, receipt)).toEqual([]);
    await copy.close();
  });

  it("everything", async () => {
    const all = await provisionAll(INSTANCES, (i) => `all-${i}`);
    await attack(1_000, all, { reach: "everything", target: {}, inReach: all });
  });
});
