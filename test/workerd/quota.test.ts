import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Quota } from "../../durable-objects/quota.ts";
import { WaitingCalls } from "../../durable-objects/waiting-calls.ts";
import type { Admission } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { chosen } from "../chosen.ts";
import { type Agent, deployment, enrolAgent, instanceStub, recordsOf, settlement, verdictOf } from "./kit.ts";
import { abort, abortInstance, ask, count, decided, ofTask, quotaStub, readQuota, team, verdict } from "./quota-kit.ts";

vi.setConfig({ testTimeout: 60_000 });
afterEach(() => vi.restoreAllMocks());

type Admitted = Extract<Admission, { admitted: true }>;
async function admitted(asked: Promise<Admission>): Promise<Admitted> {
  const admission = await asked;
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}
const later = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(Date.now() + ms);

describe("the last ten", () => {
  it("of a thousand calls at once of one instance are ten", async () => {
    const { task, members } = await team("ten-bot", 1);
    const words = await Promise.all(Array.from({ length: 1_000 }, () => decided(() => ask(members[0]!))));
    expect(count(words)).toEqual({ admitted: 10, "exhausted by ten": 990 });
    expect(await readQuota(`ten.${task}`)).toMatchObject({ quota: "ten", key: task, period: null, instances: 1 });
  });

  it("of a thousand calls at once of fifty instances are ten", async () => {
    const { members } = await team("ten-bot", 50);
    const words = await Promise.all(Array.from({ length: 1_000 }, (_, i) => decided(() => ask(members[i % 50]!))));
    expect(count(words)).toEqual({ admitted: 10, "exhausted by ten": 990 });
  });

  it("are never more while objects die, and none is lost for good", async () => {
    const random = chosen();
    const { task, members } = await team("ten-bot", 20);
    const name = `ten.${task}`;
    const words: string[] = [];
    const call = async (i: number): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, random.next() * 400));
      words.push(await verdict(ask(members[i % 20]!)));
    };
    const dying = async (deaths = random.fork()): Promise<void> => {
      for (let i = 0; i < 12; i++) {
        await new Promise((resolve) => setTimeout(resolve, deaths.next() * 40));
        await (i % 3 === 0 ? abort(quotaStub(name) as DurableObjectStub<undefined>) : abortInstance(members[i % 20]!));
      }
    };
    await Promise.all([...Array.from({ length: 300 }, (_, i) => call(i)), dying()]);
    const onRecord = async (): Promise<number> => {
      const records = await Promise.all(members.map((member) => recordsOf(member)));
      return records.flat().filter(({ type }) => type === "call").length;
    };
    // What is on record has used up budget, whether or not its Worker heard of it.
    expect(await onRecord()).toBeLessThanOrEqual(10);
    expect(words.filter((word) => word === "admitted").length).toBeLessThanOrEqual(await onRecord());
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(quotaStub(name));
        for (const member of members) await verdict(ask(member));
        expect(await onRecord()).toBe(10);
      },
      { timeout: 20_000, interval: 300 },
    );
    for (const member of members) expect(await verdict(ask(member))).not.toBe("admitted");
    expect(await onRecord()).toBe(10);
  });
});

describe("a lease", () => {
  it("that nobody uses comes back when its time is over", async () => {
    const { task, members } = await team("ten-bot", 2);
    const name = `ten.${task}`;
    expect(await verdictOf(members[0]!)).toBe("admitted");
    const { dimensions } = (await readQuota(name))!;
    expect(dimensions).toEqual([{ dimension: "calls", limit: 10, spent: 0, leased: expect.any(Number) }]);
    expect(dimensions[0]!.leased).toBeGreaterThan(1);
    const clock = later(120_000);
    await runDurableObjectAlarm(quotaStub(name));
    clock.mockRestore();
    expect((await readQuota(name))!.dimensions).toEqual([{ dimension: "calls", limit: 10, spent: 1, leased: 0 }]);
  });

  it("that others are short of is recalled before its end", async () => {
    const { task, members } = await team("ten-bot", 2);
    const name = `ten.${task}`;
    const [holder, other] = members as [Agent, Agent];
    expect(await verdictOf(holder)).toBe("admitted");
    const words = await Promise.all(Array.from({ length: 12 }, () => verdict(ask(other))));
    expect(count(words)["admitted"]).toBeLessThan(9);
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(quotaStub(name));
        words.push(await verdict(ask(other)));
        expect(count(words)["admitted"]).toBe(9);
      },
      { timeout: 10_000, interval: 200 },
    );
    expect(await verdict(ask(holder))).toBe("exhausted by ten");
  });

  it("is not spent from when its time is over, and is what the quota says when it is asked again", async () => {
    const { members } = await team("ten-bot", 1);
    expect(await verdictOf(members[0]!)).toBe("admitted");
    vi.spyOn(Quota.prototype, "lease").mockRejectedValue(new Error("out of reach"));
    expect(await verdictOf(members[0]!)).toBe("admitted");
    const clock = later(61_000);
    expect(await verdict(ask(members[0]!))).toBe("unavailable");
    clock.mockRestore();
  });

  it("that was recalled while its answer was on the way is none", async () => {
    const { members, task } = await team("ten-bot", 2);
    const [first, other] = members as [Agent, Agent];
    const name = `ten.${task}`;
    const held = Promise.withResolvers<void>();
    const lease = Quota.prototype.lease;
    let isHeld = false;
    vi.spyOn(Quota.prototype, "lease").mockImplementation(async function (this: Quota, request) {
      const answer = await lease.call(this, request);
      const isFirst = request.instance === first.id && !isHeld;
      isHeld ||= isFirst;
      if (isFirst) await held.promise;
      return answer;
    });
    const asked = verdict(ask(first));
    await vi.waitFor(async () => expect((await readQuota(name))!.dimensions[0]!.leased).toBeGreaterThan(0));
    const clock = later(120_000);
    await runDurableObjectAlarm(quotaStub(name));
    clock.mockRestore();
    expect((await readQuota(name))!.dimensions).toEqual([{ dimension: "calls", limit: 10, spent: 0, leased: 0 }]);
    const words = await Promise.all(Array.from({ length: 10 }, () => verdict(ask(other))));
    expect(count(words)).toEqual({ admitted: 10 });
    held.resolve();
    expect(await asked).toBe("exhausted by ten");
  });

  it("is not taken back by a word that is older than what was given out since", async () => {
    const { members, task } = await team("ten-bot", 2);
    const [first, other] = members as [Agent, Agent];
    const name = `ten.${task}`;
    expect(await verdictOf(first)).toBe("admitted");
    const held = Promise.withResolvers<void>();
    const recall = AgentInstance.prototype.recall;
    let asked = 0;
    vi.spyOn(AgentInstance.prototype, "recall").mockImplementation(async function (this: AgentInstance, quota) {
      const said = await recall.call(this, quota);
      // Alarms of other tests' quotas may ring meanwhile.
      if (quota === name && ++asked === 1) await held.promise;
      return said;
    });
    const clock = later(120_000);
    const ringing = runDurableObjectAlarm(quotaStub(name));
    await vi.waitFor(() => expect(asked).toBe(1));
    clock.mockRestore();
    expect(await verdict(ask(first))).toBe("admitted");
    held.resolve();
    await ringing;
    const others = await Promise.all(Array.from({ length: 12 }, () => verdict(ask(other))));
    const own = await Promise.all(Array.from({ length: 12 }, () => verdict(ask(first))));
    expect(count([...others, ...own])["admitted"]).toBeLessThanOrEqual(8);
    expect(count(own)["admitted"]).toBeGreaterThan(0);
  });
});

describe("a quota that can't be asked", () => {
  it("denies, and that is on record", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    vi.spyOn(Quota.prototype, "lease").mockRejectedValue(new Error("out of reach"));
    expect(await ask(agent)).toMatchObject({ admitted: false, denial: { kind: "unavailable" } });
    expect((await recordsOf(agent)).at(-1)).toMatchObject({
      type: "refused",
      decision: { kind: "unavailable", reason: expect.stringMatching(/^the quota ten\..* could not be asked$/) },
    });
  });

  it("denies within bounds where it says nothing", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    vi.spyOn(Quota.prototype, "lease").mockImplementation(() => new Promise(() => {}));
    expect(await verdict(ask(agent))).toBe("unavailable");
  });

  it("is asked for no call that is refused before", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    const asked = vi.spyOn(Quota.prototype, "lease");
    const denial = { kind: "absent", layer: "grant", reason: "not within the grant" } as const;
    const refused = agent.admission({ denial });
    expect(await instanceOf(deployment, agent.id).admit(refused)).toMatchObject({ admitted: false, denial });
    expect(asked).not.toHaveBeenCalled();
  });
});

describe("calls that wait for a quota's word", () => {
  /** Until it is let go, no quota answers. */
  function hold(): () => void {
    const held = Promise.withResolvers<void>();
    const lease = Quota.prototype.lease;
    vi.spyOn(Quota.prototype, "lease").mockImplementation(async function (this: Quota, request) {
      await held.promise;
      return lease.call(this, request);
    });
    return held.resolve;
  }

  it("are as many as there are places, of a thousand at once; the others are refused before it answers", async () => {
    const change = ofTask("ten-bot");
    const agent = await enrolAgent({ ...change, limits: { ...change.limits!, concurrency: 8 } });
    const letGo = hold();
    let words: string[] = [];
    const all = Array.from({ length: 1_000 }, async () => {
      const word = await verdict(ask(agent));
      words.push(word);
    });
    await vi.waitFor(() => expect(count(words)).toEqual({ limited: 992 }), 20_000);
    const refusals = (await recordsOf(agent)).filter(({ type }) => type === "refused");
    expect(refusals[0]).toMatchObject({ decision: { kind: "limited", limit: "concurrency" } });
    words = [];
    letGo();
    await Promise.all(all);
    expect(count(words)).toEqual({ admitted: 8 });
    // They run, and nobody waits: what is refused now is refused for those.
    expect(await verdict(ask(agent))).toBe("limited");
  });

  it("hold no more of their requests than the object's memory has room for", async () => {
    const waits = new WaitingCalls();
    const ends = Array.from({ length: 32 }, () => waits.begin(1_048_576));
    expect([waits.calls, waits.hasRoom(0), waits.hasRoom(1)]).toEqual([32, true, false]);
    for (const end of [ends[0]!, ends[0]!]) end();
    expect([waits.calls, waits.hasRoom(1_048_576), waits.hasRoom(1_048_577)]).toEqual([31, true, false]);
    const agent = await enrolAgent(ofTask("ten-bot"));
    // First it is asked of those that wait for the roster.
    vi.spyOn(WaitingCalls.prototype, "hasRoom").mockReturnValueOnce(true).mockReturnValueOnce(false);
    expect(await verdict(ask(agent))).toBe("unavailable");
    expect((await recordsOf(agent)).at(-1)).toMatchObject({
      type: "refused",
      decision: { kind: "unavailable", reason: "too much waits for shared limits" },
    });
  });

  it("leave their places when it denies them, or says nothing", async () => {
    const change = ofTask("ten-bot");
    const agent = await enrolAgent({ ...change, limits: { ...change.limits!, concurrency: 2 } });
    const dead = vi.spyOn(Quota.prototype, "lease").mockRejectedValue(new Error("out of reach"));
    for (let i = 0; i < 3; i++)
      expect(count(await Promise.all([verdict(ask(agent)), verdict(ask(agent))]))).toEqual({ unavailable: 2 });
    dead.mockRestore();
    expect(count(await Promise.all([verdict(ask(agent)), verdict(ask(agent))]))).toEqual({ admitted: 2 });
  });
});

describe("places of running calls", () => {
  it("are free when calls end, and those of a dead object when their Workers must have cut", async () => {
    const { members, task } = await team("places-bot", 2);
    const [first, second] = members as [Agent, Agent];
    const running = await Promise.all([admitted(ask(first)), admitted(ask(first)), admitted(ask(first))]);
    expect(await verdict(ask(second))).toBe("limited by places");
    await running[0]!.lease.settle(settlement());
    const name = `places.${task}`;
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(quotaStub(name));
        expect(await verdict(ask(second))).toBe("admitted");
      },
      { timeout: 10_000, interval: 200 },
    );
    await abortInstance(first);
    expect(await verdict(ask(first))).toBe("limited by places");
    await runDurableObjectAlarm(quotaStub(name));
    expect(await verdict(ask(second))).toBe("limited by places");
    const clock = later(31_000);
    const nowMs = Date.now();
    // Its own, whose Worker was silent as well, and the two of the object that died.
    for (let i = 0; i < 3; i++) {
      clock.mockReturnValue(nowMs + i * 1_000);
      await runDurableObjectAlarm(quotaStub(name));
      expect(await verdict(ask(second))).toBe("admitted");
    }
    clock.mockRestore();
  });
});

describe("places of calls that the end of their transcript gave up", () => {
  it("are free when their Workers must have cut, though the object was reset meanwhile", async () => {
    const { members, task } = await team("places-bot", 2);
    const [first, second] = members as [Agent, Agent];
    await Promise.all([admitted(ask(first)), admitted(ask(first)), admitted(ask(first))]);
    const name = `places.${task}`;
    const endMs = Date.now() + 400_000;
    const grant = { id: "grant-2", expiresAtMs: endMs + 60_000 };
    const askSecond = () => verdict(instanceOf(deployment, second.id).admit(second.admission({ grant })));
    await instanceOf(deployment, first.id).revoke("platform", "test");
    const clock = vi.spyOn(Date, "now").mockReturnValue(endMs);
    await runInDurableObject(instanceStub(first.id), (object) => object.alarm());
    expect(await ask(first)).toMatchObject({ denial: { reason: "the transcript has ended" } });
    for (const dies of [false, true]) {
      if (dies) await abortInstance(first);
      await runDurableObjectAlarm(quotaStub(name));
      expect(await askSecond()).toBe("limited by places");
    }
    clock.mockReturnValue(endMs + 31_000);
    await runDurableObjectAlarm(quotaStub(name));
    expect(await askSecond()).toBe("admitted");
  });
});

describe("a rate", () => {
  it("is shared, and a clock that goes back refills nothing", async () => {
    const { members } = await team("paced-bot", 5);
    const all = () => Promise.all(members.flatMap((member) => [verdict(ask(member)), verdict(ask(member))]));
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs);
    expect(count(await all())).toEqual({ admitted: 5, "limited by paced": 5 });
    clock.mockReturnValue(nowMs - 3_600_000);
    expect(count(await all())).toEqual({ "limited by paced": 10 });
    clock.mockReturnValue(nowMs + 2_000);
    expect(count(await all())["admitted"]).toBe(2);
  });
});

describe("a period", () => {
  const HOUR = 3_600_000;

  it("that is over has new budgets, for each pair by itself, and a clock that goes back finds the later one", async () => {
    const boundaryMs = (Math.floor(Date.now() / HOUR) + 2) * HOUR;
    const clock = vi.spyOn(Date, "now").mockReturnValue(boundaryMs - 20_000);
    const { members, task } = await team("hourly-bot", 3);
    const all = () => Promise.all(members.flatMap((member) => Array.from({ length: 3 }, () => verdict(ask(member)))));
    expect(count(await all())).toEqual({ admitted: 4, "exhausted by hourly": 5 });
    expect(await ask(members[0]!)).toMatchObject({
      denial: { budget: "calls", quota: `hourly.${task}.github`, retryAfterSeconds: 20 },
    });
    clock.mockReturnValue(boundaryMs - 1);
    expect(count(await all())).toEqual({ "exhausted by hourly": 9 });
    clock.mockReturnValue(boundaryMs + 600);
    expect(count(await all())).toEqual({ admitted: 4, "exhausted by hourly": 5 });
    expect((await readQuota(`hourly.${task}.github`))!.period).toEqual({
      fromMs: boundaryMs,
      untilMs: boundaryMs + HOUR,
    });
    clock.mockReturnValue(boundaryMs - 10_000);
    expect(count(await all())).toEqual({ "exhausted by hourly": 9 });
    clock.mockReturnValue(boundaryMs + 10_000);
    expect(count(await all())).toEqual({ "exhausted by hourly": 9 });
  });

  it("ends the leases of it: what was not spent is not added to the next one", async () => {
    const boundaryMs = (Math.floor(Date.now() / HOUR) + 2) * HOUR;
    const clock = vi.spyOn(Date, "now").mockReturnValue(boundaryMs - 5_000);
    const { members } = await team("hourly-bot", 1);
    expect(await verdict(ask(members[0]!))).toBe("admitted");
    clock.mockReturnValue(boundaryMs + 1_000);
    const words = await Promise.all(Array.from({ length: 9 }, () => verdict(ask(members[0]!))));
    expect(count(words)).toEqual({ admitted: 4, "exhausted by hourly": 5 });
  });
});

describe("a deployment", () => {
  it("that lowers a quota, or raises it, counts from the next lease on", async () => {
    const { members } = await team("ten-bot", 1);
    const { ten } = deployment.config.quotas as unknown as { ten: { calls: number } };
    try {
      for (let i = 0; i < 4; i++) expect(await verdict(ask(members[0]!))).toBe("admitted");
      ten.calls = 4;
      const words = await Promise.all(Array.from({ length: 20 }, () => verdict(ask(members[0]!))));
      // What had been leased before may still be used.
      expect(count(words)["admitted"] ?? 0).toBeLessThanOrEqual(4);
      ten.calls = 30;
      await vi.waitFor(async () => expect(await verdict(ask(members[0]!))).toBe("admitted"));
    } finally {
      ten.calls = 10;
    }
  });
});

describe("bytes", () => {
  const RUN = new Uint8Array(200_000);
  /** What a running call may pass before it is counted, as `agent-instance.ts` has it. */
  const LEAD = 262_144 + 65_536;

  it("are counted as they pass, and a stream that finds nothing left is cut within what it had reserved", async () => {
    const { members, task } = await team("bytes-bot", 1);
    const { lease } = await admitted(ask(members[0]!));
    let passed = 0;
    while ((await lease.append(RUN)) !== null) passed += RUN.length;
    expect(await lease.broken()).toBe("budget");
    // The last run was on its way, as part of the reserve.
    expect(passed + LEAD).toBeLessThanOrEqual(1_048_576);
    expect(passed + LEAD + RUN.length).toBeGreaterThan(1_048_576);
    await lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
    expect(await verdict(ask(members[0]!))).toBe("exhausted by mebibytes");
    expect((await readQuota(`mebibytes.${task}`))!.dimensions[0]).toMatchObject({ limit: 1_048_576 });
  });

  it("that were durable when the object died are counted, and what it had reserved stays so", async () => {
    const { members, task } = await team("bytes-bot", 1);
    const { lease } = await admitted(ask(members[0]!));
    for (let i = 0; i < 3; i++) expect(await lease.append(RUN)).not.toBeNull();
    await abortInstance(members[0]!);
    await runDurableObjectAlarm(quotaStub(`mebibytes.${task}`));
    const clock = later(120_000);
    await runDurableObjectAlarm(quotaStub(`mebibytes.${task}`));
    clock.mockRestore();
    expect((await readQuota(`mebibytes.${task}`))!.dimensions[0]!.spent).toBe(3 * RUN.length + LEAD);
  });
});
