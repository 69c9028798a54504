import { evictDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import {
  deployment,
  enrolAgent,
  enrolIdle,
  flip,
  instanceStub,
  operator,
  recordsOf,
  rosterStub,
  settlement,
  typesOf,
  verdictOf,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

// In one file, in this order: they reach whoever is there.
const board = switchboardOf(deployment);
const later = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(Date.now() + ms);

describe("everything", () => {
  it("paused: nobody calls and nobody comes, on shards that were there or not; resumed, all go on", async () => {
    const agents = await Promise.all(Array.from({ length: 12 }, () => enrolAgent()));
    const idle = await enrolIdle();
    const { switch: sw, reached, idle: idleCount, status } = await flip({ act: "pause" });
    expect([reached.length, idleCount, status]).toEqual([12, 1, "done"]);
    expect(new Set(await Promise.all([...agents, idle].map(verdictOf)))).toEqual(new Set(["switched"]));
    for (const rosterShard of [0, 55])
      await expect(enrolAgent({ rosterShard })).rejects.toThrow("not enrolled: switched");
    for (const { enrolment } of agents) {
      const members = await rosterOf(deployment, enrolment.rosterShard).list("", 1_000);
      expect(new Set(members.map(({ state }) => state))).toEqual(new Set(["paused"]));
    }
    // One of the shards begins anew while it holds, and so does an instance.
    await evictDurableObject(rosterStub(agents[0]!.enrolment.rosterShard));
    await evictDurableObject(instanceStub(agents[1]!.id));
    expect(await verdictOf(agents[1]!)).toBe("switched");
    expect(
      (await board.resume({ reach: "everything", target: {} }, operator())).map(({ switch: { id } }) => id),
    ).toEqual([sw.id]);
    const clock = later(1_001);
    // The call that has the roster asked is still refused.
    await vi.waitFor(async () =>
      expect(new Set(await Promise.all([...agents, idle].map(verdictOf)))).toEqual(new Set(["admitted"])),
    );
    clock.mockRestore();
    expect(await verdictOf(await enrolAgent({ rosterShard: 55 }))).toBe("admitted");
  });

  it("killed: whoever is there dies with every call, and after two have lifted it newcomers alone are let in", async () => {
    const agents = await Promise.all(Array.from({ length: 12 }, () => enrolAgent()));
    const leases = await Promise.all(
      agents.map(async (agent) => {
        const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
        if (!admission.admitted) throw new Error("refused");
        return admission.lease;
      }),
    );
    const flipping = flip();
    await Promise.all(
      leases.map(async (lease) => {
        expect(await lease.broken()).toBe("switched");
        await lease.settle(settlement({ outcome: "cut" }));
        lease[Symbol.dispose]?.();
      }),
    );
    const { switch: sw, status, reached } = await flipping;
    expect(status).toBe("done");
    const mine = reached.filter(({ instance }) => agents.some(({ id }) => id === instance));
    expect(mine.map(({ answer }) => [answer?.cut, answer?.unconfirmed])).toEqual(agents.map(() => [1, 0]));
    await expect(enrolAgent({ rosterShard: 56 })).rejects.toThrow("not enrolled: switched");
    expect((await board.lift(sw.id, operator("one"))).kind).toBe("second-operator");
    await expect(enrolAgent()).rejects.toThrow("not enrolled: switched");
    expect((await board.lift(sw.id, operator("two"))).kind).toBe("opened");
    const newcomer = await enrolAgent({ rosterShard: agents[0]!.enrolment.rosterShard });
    for (const { id } of agents.slice(0, 3)) await evictDurableObject(instanceStub(id));
    const clock = later(61_000);
    expect(new Set(await Promise.all(agents.map(verdictOf)))).toEqual(new Set(["switched"]));
    expect(await verdictOf(newcomer)).toBe("admitted");
    clock.mockRestore();
    expect(typesOf(await recordsOf(agents[4]!))).toBe("enrolled call switched answer refused");
  });
});

describe("who was revoked", () => {
  it("stays within reach of a kill until its Workers have confirmed", async () => {
    const agent = await enrolAgent();
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    // Its Worker says nothing.
    expect(await instanceOf(deployment, agent.id).revoke("build-platform", "test")).toMatchObject({ unconfirmed: 1 });
    const flipping = flip({ reach: "instance", target: { instance: agent.id } });
    expect(await flipping).toMatchObject({
      status: "pending",
      reached: [{ instance: agent.id, answer: { cut: 0, unconfirmed: 1 } }],
    });
    expect(await admission.lease.settle(settlement({ outcome: "cut" }))).toBe("ended");
  });
});
