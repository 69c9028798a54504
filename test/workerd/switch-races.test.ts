import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Roster } from "../../durable-objects/roster.ts";
import type { Switchboard } from "../../durable-objects/switchboard.ts";
import type { FlipState } from "../../src/control/contract.ts";
import { shardOf } from "../../src/control/shard.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import { chosen } from "../chosen.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  flip,
  flipRequest,
  instanceStub,
  recordsOf,
  rosterStub,
  settlement,
  verdictOf,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

/** Made anew each time: a stub whose object was reset stays broken. */
const board = () => switchboardOf(deployment);
const uuid = () => crypto.randomUUID();
const abort = async (stub: DurableObjectStub<Roster | Switchboard>) => {
  await runInDurableObject(stub as DurableObjectStub<Roster>, (_o, state) => state.abort("reset by a test")).catch(
    () => {},
  );
};
/** The class as the objects have it: what an object itself holds is not to be called over RPC. */
const prototypeOf = async <T extends Rpc.DurableObjectBranded>(stub: DurableObjectStub<T>): Promise<T> =>
  (await runInDurableObject(stub as never, (object: object) => ({ it: Object.getPrototypeOf(object) as T }))).it;
const doneOf = async (id: string): Promise<FlipState> =>
  vi.waitFor(
    async () => {
      await runDurableObjectAlarm(boardStub()).catch(() => false);
      const state = await board().read(id);
      expect(state?.status).toBe("done");
      return state!;
    },
    { timeout: 15_000, interval: 100 },
  );
const enrolling = (agent: Agent, id: string, human: string) =>
  instanceOf(deployment, id)
    .enrol({
      enrolment: { ...agent.enrolment, instance: id, human },
      humanClaims: {},
      proof: { jti: uuid(), issuedAtMs: Date.now() },
      deployment: "test",
    })
    .catch(() => ({ enrolled: false, reason: "broken" }));

describe("a kill that races with an enrolment", () => {
  it("before it is enlisted: a mark stands, and the key stays out", async () => {
    const agent = await enrolAgent();
    const id = uuid();
    const state = await flip({ reach: "instance", target: { instance: id } });
    expect(state).toMatchObject({ status: "done", reached: [], idle: 0 });
    expect(await enrolling(agent, id, uuid())).toEqual({ enrolled: false, reason: "switched" });
  });

  it.each(["instance", "human"] as const)("between the roster and the enrolment: %s", async (reach) => {
    const agent = await enrolAgent();
    const [id, human] = [uuid(), uuid()];
    const roster = await prototypeOf(rosterStub(agent.enrolment.rosterShard));
    const enlist = roster.enlist;
    let flipped: FlipState | undefined;
    vi.spyOn(roster, "enlist").mockImplementation(async function (this: Roster, attributes) {
      const answer = await enlist.call(this, attributes);
      // The answer is on its way: the kill is through before it arrives.
      flipped = await flip({ reach, target: reach === "instance" ? { instance: id } : { human } });
      return answer;
    });
    expect(await enrolling(agent, id, human)).toEqual({ enrolled: false, reason: "switched" });
    expect(flipped).toMatchObject({ status: "done", reached: [{ instance: id, answer: { cut: 0 } }] });
    vi.restoreAllMocks();
    expect(await enrolling(agent, id, human)).toEqual({ enrolled: false, reason: "switched" });
    expect(await instanceOf(deployment, id).admit(agent.admission())).toMatchObject({ admitted: false });
  });

  it("whenever it comes: nobody who enrolled is admitted once the receipt says done", async () => {
    const agent = await enrolAgent();
    for (let round = 0; round < 8; round++) {
      const human = uuid();
      const ids = Array.from({ length: 6 }, uuid);
      const enrolments = ids.map((id) => enrolling(agent, id, human));
      for (let turns = 0; turns < round; turns++) await Promise.resolve();
      if (round > 4) await enrolments[0];
      const { switch: sw } = await flip({ reach: "human", target: { human } });
      await doneOf(sw.id);
      await Promise.all(enrolments);
      for (const id of ids) expect((await instanceOf(deployment, id).admit(agent.admission())).admitted).toBe(false);
    }
  }, 30_000);
});

describe("a kill of many while calls come in", () => {
  const objects: [string, (agents: readonly Agent[]) => Promise<void>][] = [
    ["nothing", async () => {}],
    ["the switchboard", async () => abort(boardStub())],
    [
      "every shard",
      async (agents) => {
        for (const shard of new Set(agents.map(({ enrolment }) => enrolment.rosterShard)))
          await abort(rosterStub(shard));
      },
    ],
    [
      "an instance",
      async ([first]) => {
        await runInDurableObject(instanceStub(first!.id), (_i, state) => state.abort("reset by a test")).catch(
          () => {},
        );
      },
    ],
    [
      "an instance's alarm, which flushes",
      async ([first]) => void (await runDurableObjectAlarm(instanceStub(first!.id))),
    ],
  ];
  for (const [what, fault] of objects)
    for (const turns of [0, 3, 40])
      it(`with a fault after ${turns} turns: ${what}`, async () => {
        const human = uuid();
        const agents = await Promise.all(Array.from({ length: 6 }, () => enrolAgent({ human })));
        let isStopped = false;
        let cut = 0;
        let doneAtMs = Number.POSITIVE_INFINITY;
        const late: number[] = [];
        const calling = agents.map(async (agent) => {
          while (!isStopped) {
            const askedAtMs = performance.now();
            try {
              const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
              if (!admission.admitted) break;
              if (askedAtMs > doneAtMs) late.push(askedAtMs);
              // It runs until it is cut, or its object goes.
              await admission.lease.broken();
              if (await admission.lease.settle(settlement({ outcome: "cut" })).then(() => true)) cut++;
              admission.lease[Symbol.dispose]?.();
            } catch {
              // The object was reset.
            }
          }
        });
        await vi.waitFor(async () => {
          for (const agent of agents) expect((await recordsOf(agent)).map(({ type }) => type)).toContain("call");
        });
        const id = uuid();
        const flipping = board()
          .flip(flipRequest({ id, reach: "human", target: { human } }))
          .catch(() => null);
        for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
        await fault(agents);
        await flipping;
        if ((await board().read(id)) === null)
          await board().flip(flipRequest({ id, reach: "human", target: { human } }));
        const isOrphaned = what === "an instance";
        // What nobody confirmed takes its half minute: that is another test's.
        if (!isOrphaned) await doneOf(id);
        doneAtMs = performance.now();
        isStopped = true;
        await Promise.all(calling);
        expect(late).toEqual([]);
        expect(await Promise.all(agents.map(verdictOf))).toEqual(agents.map(() => "switched"));
        const state = (await board().read(id))!;
        const counted = state.reached.reduce((sum, { answer }) => sum + (answer?.cut ?? 0), 0);
        expect(counted).toBeLessThanOrEqual(cut);
        if (!isOrphaned) expect([counted, state.reached.length]).toEqual([cut, agents.length]);
        for (const agent of agents) {
          const records = await recordsOf(agent);
          expect(records.filter(({ type }) => type === "switched").length).toBeLessThanOrEqual(1);
        }
      }, 40_000);
});

describe("a shard that comes up cold", () => {
  it("gets every closed switch before it takes anybody", async () => {
    await enrolAgent();
    const human = uuid();
    await flip({ reach: "human", target: { human } });
    await expect(enrolAgent({ human, rosterShard: 101 })).rejects.toThrow("not enrolled: switched");
    await enrolAgent({ rosterShard: 101 });
  });

  it("takes nobody while the switchboard can't be asked", async () => {
    const prototype = await prototypeOf(boardStub());
    const join = vi.spyOn(prototype, "join").mockRejectedValue(new Error("out of reach"));
    await expect(enrolAgent({ rosterShard: 102 })).rejects.toThrow("not enrolled: unavailable");
    join.mockRestore();
    await enrolAgent({ rosterShard: 102 });
  });

  it("and races with a flip: one finds the other, whoever comes first", async () => {
    for (let round = 0; round < 10; round++) {
      const human = uuid();
      const rosterShard = 110 + round;
      const enrolling = enrolAgent({ human, rosterShard }).catch(() => null);
      for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
      const { switch: sw } = await flip({ reach: "human", target: { human } });
      await doneOf(sw.id);
      const agent = await enrolling;
      if (agent !== null) expect(await verdictOf(agent)).toBe("switched");
      await expect(enrolAgent({ human, rosterShard })).rejects.toThrow("not enrolled: switched");
    }
  }, 30_000);
});

describe("a higher number of shards", () => {
  it("moves nobody who is enrolled, and a switch finds old and new", async () => {
    const random = chosen();
    const human = uuid();
    const agents = await Promise.all(Array.from({ length: 8 }, () => enrolAgent({ human })));
    const more = await Promise.all(
      Array.from({ length: 8 }, () => enrolAgent({ human, rosterShard: random.between(120, 135) })),
    );
    expect(agents.some(({ id, enrolment }) => shardOf(id, 16) !== enrolment.rosterShard)).toBe(true);
    const all = [...agents, ...more];
    for (const { id, enrolment } of all)
      expect((await rosterOf(deployment, enrolment.rosterShard).confirm(id)).confirmed).toBe(true);
    const { reached, status } = await flip({ reach: "human", target: { human } });
    expect(status).toBe("done");
    expect(reached.map(({ instance }) => instance).sort()).toEqual(all.map(({ id }) => id).sort());
  });
});
