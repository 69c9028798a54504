import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Roster } from "../../durable-objects/roster.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  flip,
  ISSUES,
  instanceStub,
  operator,
  recordsOf,
  rosterStub,
  settlement,
  switchOf,
  typesOf,
  upstream,
  verdictOf,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = switchboardOf(deployment);
const somebody = () => `human-${crypto.randomUUID()}`;
const later = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(Date.now() + ms);
/** The call that has the roster asked is still refused. */
const expectResumed = (agent: Agent) => vi.waitFor(async () => expect(await verdictOf(agent)).toBe("admitted"));

describe("a pause", () => {
  it("refuses and cuts, keeps newcomers out, and a resume admits again", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    const running = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!running.admitted) throw new Error("refused");
    const flipping = flip({ act: "pause", reach: "human", target: { human } });
    expect(await running.lease.broken()).toBe("switched");
    await running.lease.settle(settlement({ outcome: "cut" }));
    const { switch: sw, status, reached } = await flipping;
    expect([status, reached]).toMatchObject(["done", [{ instance: agent.id, answer: { cut: 1, unconfirmed: 0 } }]]);
    expect(await verdictOf(agent)).toBe("switched");
    await expect(enrolAgent({ human })).rejects.toThrow("not enrolled: switched");
    expect(await board.resume({ reach: "task", target: { task: human } }, operator())).toEqual([]);
    const resumed = await board.resume({ reach: "human", target: { human } }, operator());
    expect(resumed).toMatchObject([{ switch: { id: sw.id }, opened: { by: "operator-1" } }]);
    await vi.waitFor(async () => expect(await verdictOf(agent)).toBe("admitted"));
    const switched = (await recordsOf(agent)).filter(({ type }) => type === "switched");
    expect(switched.map(({ act, by, reason }) => [act, by, reason])).toEqual([
      ["pause", sw.by, sw.reason],
      ["resume", "operator-1", "test"],
    ]);
    await enrolAgent({ human });
  });

  it("whose resume was lost is over when the roster is asked next, though its shard began anew", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await flip({ act: "pause", reach: "human", target: { human } });
    // The shard remembers nobody whom it had told.
    await evictDurableObject(rosterStub(agent.enrolment.rosterShard));
    const [resumed] = await board.resume({ reach: "human", target: { human } }, operator());
    expect(resumed?.opened).not.toBeNull();
    const clock = later(1_001);
    await expectResumed(agent);
    clock.mockRestore();
    expect((await recordsOf(agent)).map(({ type, act }) => act ?? type)).toContain("resume");
  });

  it("stays, whatever order its pushes come in, only as long as the roster says so", async () => {
    const agent = await enrolAgent();
    const sw = switchOf({ act: "pause", reach: "instance", target: { instance: agent.id } });
    const instance = instanceOf(deployment, agent.id);
    // The roster knows nothing of it: its resume overtook it.
    await instance.reopen(sw.id, null);
    await instance.close(sw);
    const clock = later(1_001);
    await expectResumed(agent);
    await instance.close(sw);
    expect(await verdictOf(agent)).toBe("admitted");
    clock.mockRestore();
    await evictDurableObject(instanceStub(agent.id));
    await instance.close(sw);
    await expectResumed(agent);
  });

  it("is answered as fast as a kill, however long the roster takes: it is asked beside the call", async () => {
    const agent = await enrolAgent();
    await flip({ act: "pause", reach: "instance", target: { instance: agent.id } });
    let isAsked = false;
    vi.spyOn(Roster.prototype, "confirm").mockImplementation(() => {
      isAsked = true;
      return new Promise(() => {});
    });
    const clock = later(1_001);
    const waits = new Promise((resolve) => setTimeout(() => resolve("it waits"), 15_000));
    expect(await Promise.race([verdictOf(agent), waits])).toBe("switched");
    await vi.waitFor(() => expect(isAsked).toBe(true));
    clock.mockRestore();
  });

  it("is not over because the roster does not know the instance any more", async () => {
    const agent = await enrolAgent();
    await flip({ act: "pause", reach: "instance", target: { instance: agent.id } });
    const stub = rosterStub(agent.enrolment.rosterShard);
    await runInDurableObject(stub, (_roster, { storage }) => {
      storage.sql.exec("DELETE FROM members WHERE instance = ?", agent.id);
    });
    const clock = later(61_000);
    expect(await verdictOf(agent)).toBe("switched");
    clock.mockRestore();
    expect(typesOf(await recordsOf(agent))).toBe("enrolled switched refused");
  });

  it("pushed to a key that never came to its enrolment, and resumed since, does not keep it out for ever", async () => {
    const { enrolment } = await enrolAgent();
    const id = crypto.randomUUID();
    const instance = instanceOf(deployment, id);
    await instance.close(switchOf({ act: "pause", reach: "instance", target: { instance: id } }));
    const answer = await instance.enrol({
      enrolment: { ...enrolment, instance: id },
      humanClaims: {},
      proof: { jti: "j", issuedAtMs: Date.now() },
      deployment: "test",
    });
    expect(answer).toEqual({ enrolled: true });
  });

  it("under a kill: the resume sets nobody free whom the kill has", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await flip({ act: "pause", reach: "human", target: { human } });
    await flip({ reach: "instance", target: { instance: agent.id } });
    await board.resume({ reach: "human", target: { human } }, operator());
    const clock = later(61_000);
    expect(await verdictOf(agent)).toBe("switched");
    clock.mockRestore();
  });

  it("opens by itself when its time is over", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await flip({ act: "pause", reach: "human", target: { human }, untilMs: Date.now() + 400 });
    expect(await verdictOf(agent)).toBe("switched");
    await vi.waitFor(async () => expect(await verdictOf(agent)).toBe("admitted"), { interval: 100 });
  });
});

describe("a pause of an upstream", () => {
  it("blocks and cuts its calls alone, comes along with an enrolment, and a resume lets both call", async () => {
    upstream(() => Response.json([]));
    const human = somebody();
    const target = { human, upstream: "github" };
    const before = await enrolAgent({ human });
    await flip({ act: "pause", reach: "human-upstream", target });
    const newcomer = await enrolAgent({ human });
    for (const agent of [before, newcomer]) {
      expect(await verdictOf(agent)).toBe("a switch of this upstream");
      expect((await agent.call(ISSUES)).status).toBe(404);
      expect(await instanceOf(deployment, agent.id).introspect()).toMatchObject({ state: "active" });
      expect((await rosterOf(deployment, agent.enrolment.rosterShard).confirm(agent.id)).confirmed).toBe(true);
    }
    expect(typesOf((await recordsOf(newcomer)).slice(0, 2))).toBe("enrolled switched");
    await board.resume({ reach: "human-upstream", target }, operator());
    await runDurableObjectAlarm(boardStub());
    for (const agent of [before, newcomer])
      await vi.waitFor(async () => expect(await verdictOf(agent)).toBe("admitted"), { interval: 200 });
  });

  it("pushed while the enrolment is on its way stands after it: the enrolment is record 0", async () => {
    const human = somebody();
    const template = await enrolAgent({ human });
    const paused = await flip({ act: "pause", reach: "human-upstream", target: { human, upstream: "github" } });
    const instance = crypto.randomUUID();
    await instanceOf(deployment, instance).close(paused.switch);
    const enrolled = await instanceOf(deployment, instance).enrol({
      enrolment: { ...template.enrolment, instance },
      humanClaims: {},
      proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
      deployment: "test",
    });
    expect(enrolled).toEqual({ enrolled: true });
    expect(typesOf(await recordsOf({ ...template, id: instance }))).toBe("enrolled switched");
  });
});
