// Rows of those who will never ask again go. What they have spent never does.

import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Orphans } from "../../durable-objects/orphans.ts";
import { instanceOf, quotaOf } from "../../src/objects.ts";
import { deployment, enrolAgent, instanceStub, settlement, verdictOf } from "./kit.ts";
import { abort, abortInstance, ask, count, ofTask, quotaStub, readQuota, team, verdict } from "./quota-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

const HOUR = 3_600_000;
const atMs = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(ms);

const rows = (name: string): Promise<Record<string, number>> =>
  runInDurableObject(quotaStub(name), (_quota, { storage }) => {
    const countOf = (table: string): number =>
      storage.sql.exec<{ n: number }>(`SELECT count(*) AS n FROM ${table}`).one().n;
    return { holders: countOf("holders"), ends: countOf("ends") };
  });
const spent = async (name: string): Promise<unknown> => (await readQuota(name))!.dimensions[0];
const restart = (name: string): Promise<void> => abort(quotaStub(name) as DurableObjectStub<undefined>);

describe("holders whose tasks are over", () => {
  it("go an hour after, with everything that they held; what they have spent stays, over restarts", async () => {
    const { task, members } = await team("ten-bot", 3);
    const name = `ten.${task}`;
    const deadlineMs = members[0]!.enrolment.task.deadlineMs;
    for (const member of members) expect(await verdictOf(member)).toBe("admitted");
    expect(await rows(name)).toEqual({ holders: 3, ends: 3 });
    const clock = atMs(deadlineMs + 60_000);
    await runDurableObjectAlarm(quotaStub(name));
    // Asked and told; but a late word of theirs would still be heard.
    expect(await rows(name)).toEqual({ holders: 3, ends: 3 });
    expect(await spent(name)).toEqual({ dimension: "calls", limit: 10, spent: 3, leased: 0 });
    await restart(name);
    clock.mockReturnValue(deadlineMs + 2 * HOUR);
    await runDurableObjectAlarm(quotaStub(name));
    expect(await rows(name)).toEqual({ holders: 0, ends: 0 });
    await restart(name);
    expect(await spent(name)).toEqual({ dimension: "calls", limit: 10, spent: 3, leased: 0 });

    // Others of the task find what is left, and not one more.
    const own = { id: task, purpose: "test", deadlineMs: Date.now() + HOUR };
    const heir = await enrolAgent({ ...ofTask("ten-bot"), task: own });
    const words: string[] = [];
    for (let i = 0; i < 9; i++) words.push(await verdict(ask(heir)));
    expect(count(words)).toEqual({ admitted: 7, "exhausted by ten": 2 });
    expect(await rows(name)).toEqual({ holders: 1, ends: 1 });
  });

  it("are rung for, though nobody asks any more", async () => {
    const { task, members } = await team("ten-bot", 1);
    const name = `ten.${task}`;
    const deadlineMs = members[0]!.enrolment.task.deadlineMs;
    expect(await verdictOf(members[0]!)).toBe("admitted");
    const clock = atMs(Date.now() + 120_000);
    await runDurableObjectAlarm(quotaStub(name));
    const alarmMs = () => runInDurableObject(quotaStub(name), (_quota, { storage }) => storage.getAlarm());
    expect(await alarmMs()).toBe(deadlineMs + 2 * HOUR);
    // An object that starts without its alarm arms it again.
    await runInDurableObject(quotaStub(name), (_quota, { storage }) => storage.deleteAlarm());
    await evictDurableObject(quotaStub(name));
    expect(await alarmMs()).toBe(deadlineMs + 2 * HOUR);
    clock.mockRestore();
  });

  it("stay while one has not said its last, and then go with all of it counted", async () => {
    const { task, members } = await team("ten-bot", 2);
    const name = `ten.${task}`;
    const deadlineMs = members[0]!.enrolment.task.deadlineMs;
    expect(await verdictOf(members[0]!)).toBe("admitted");
    // It uses of its lease what the quota does not hear of.
    expect(await verdictOf(members[1]!)).toBe("admitted");
    expect(await verdictOf(members[1]!)).toBe("admitted");
    const recall = AgentInstance.prototype.recall;
    let isReachable = false;
    vi.spyOn(AgentInstance.prototype, "recall").mockImplementation(async function (this: AgentInstance, quota) {
      const answer = await recall.call(this, quota);
      if (quota === name && !isReachable && answer?.used.calls === 2) throw new Error("out of reach");
      return answer;
    });
    const clock = atMs(deadlineMs + 3 * HOUR);
    await runDurableObjectAlarm(quotaStub(name));
    expect(await rows(name)).toEqual({ holders: 1, ends: 1 });
    expect(await spent(name)).toMatchObject({ spent: 1, leased: expect.any(Number) });
    isReachable = true;
    clock.mockReturnValue(deadlineMs + 4 * HOUR);
    await abortInstance(members[1]!);
    await runDurableObjectAlarm(quotaStub(name));
    expect(await rows(name)).toEqual({ holders: 0, ends: 0 });
    expect(await spent(name)).toMatchObject({ spent: 3, leased: 0 });
  });

  it("count nothing twice: a question that comes late, or again, changes nothing", async () => {
    const { task, members } = await team("ten-bot", 1);
    const name = `ten.${task}`;
    const { id, enrolment } = members[0]!;
    const { deadlineMs } = enrolment.task;
    expect(await verdictOf(members[0]!)).toBe("admitted");
    const clock = atMs(deadlineMs + 3 * HOUR);
    await runDurableObjectAlarm(quotaStub(name));
    expect(await rows(name)).toEqual({ holders: 0, ends: 0 });
    const late = { period: 0, used: { calls: 1 }, running: 0, instance: id, deadlineMs, basis: null };
    const question = { ...late, least: { calls: 1 }, need: { calls: 1 }, ahead: {} };
    expect(await quotaOf(deployment, name).lease(question)).toBeNull();
    expect(await quotaOf(deployment, name).lease({ ...question, basis: 1 })).toBeNull();
    expect(await rows(name)).toEqual({ holders: 0, ends: 0 });
    expect(await spent(name)).toEqual({ dimension: "calls", limit: 10, spent: 1, leased: 0 });
    // The last moment at which one counts is before its row can go.
    clock.mockReturnValue(deadlineMs + HOUR - 1);
    expect(await quotaOf(deployment, name).lease(question)).not.toBeNull();
  });
});

describe("what is spent", () => {
  it("is what all have used, over random calls, deaths, alarms and ends of tasks", async () => {
    let state = 11;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 4_294_967_296) * below);
    };
    const human = `human-${crypto.randomUUID()}`;
    const name = `ample.${human}`;
    const startMs = Date.now();
    const lasting = (hours: number) =>
      enrolAgent({
        ...ofTask("ample-bot"),
        human,
        task: { id: `build-platform_${crypto.randomUUID()}`, purpose: "test", deadlineMs: startMs + hours * HOUR },
      });
    const agents = await Promise.all([1, 1, 2, 3, 5, 8].map(lasting));
    const clock = atMs(startMs);
    let nowMs = startMs;
    for (let step = 0; step < 150; step++) {
      const agent = agents[random(agents.length)]!;
      const what = random(10);
      if (what < 6) {
        const grant = { id: "grant-1", expiresAtMs: startMs + 100 * HOUR };
        const asked = instanceOf(deployment, agent.id).admit(agent.admission({ grant }));
        const admission = await asked.catch(() => null);
        if (admission?.admitted === true && random(2) === 0)
          await admission.lease.settle(settlement()).catch(() => false);
      } else if (what === 6) await abortInstance(agent);
      else if (what === 7) await restart(name);
      else {
        nowMs += random(2) === 0 ? 70_000 : random(HOUR);
        clock.mockReturnValue(nowMs);
        await runDurableObjectAlarm(quotaStub(name)).catch(() => false);
      }
    }
    // Calls that nobody settled are lost with their objects, and the quota hears of it when it asks again.
    clock.mockReturnValue(startMs + 50 * HOUR);
    for (const agent of agents) {
      await abortInstance(agent);
      await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    }
    for (const hours of [51, 52]) {
      clock.mockReturnValue(startMs + hours * HOUR);
      await runInDurableObject(quotaStub(name), (quota) => quota.alarm());
    }
    expect(await rows(name)).toEqual({ holders: 0, ends: 0 });
    const reports = await Promise.all(agents.map(({ id }) => instanceOf(deployment, id).recall(name)));
    const used = reports.reduce((sum, report) => sum + (report?.used.calls ?? 0), 0);
    expect(used).toBeGreaterThan(20);
    expect(await spent(name)).toMatchObject({ spent: used, leased: 0 });
  });
});

describe("an instance some of whose bytes are not counted to the end", () => {
  it("says that its use will change, though nothing of it runs", async () => {
    const { task, members } = await team("bytes-bot", 1);
    expect(await verdictOf(members[0]!)).toBe("admitted");
    const recalled = () => instanceOf(deployment, members[0]!.id).recall(`mebibytes.${task}`);
    expect(await recalled()).toMatchObject({ running: 0 });
    vi.spyOn(Orphans.prototype, "hasAny", "get").mockReturnValue(true);
    expect(await recalled()).toMatchObject({ running: 1 });
  });
});
