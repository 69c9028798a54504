import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { attributesOf } from "../../durable-objects/instance-fields.ts";
import { Members } from "../../durable-objects/members.ts";
import { Roster } from "../../durable-objects/roster.ts";
import type { Member } from "../../src/control/contract.ts";
import type { Switch } from "../../src/control/switch.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  flipRequest,
  ISSUES,
  instanceStub,
  recordsOf,
  rosterStub,
  settlement,
  switchOf,
  typesOf,
  upstream,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const flip = async ({ id }: Agent) => {
  const answer = await switchboardOf(deployment).flip(flipRequest({ reach: "instance", target: { instance: id } }));
  if (!answer.flipped) throw new Error("not flipped");
  return answer.state;
};
const memberOf = async ({ id, enrolment }: Agent): Promise<Member | undefined> =>
  (await rosterOf(deployment, enrolment.rosterShard).list("", 1_000)).find(({ instance }) => instance === id);

describe("the roster", () => {
  it("lists who enrolled, and no one else", async () => {
    const agent = await enrolAgent();
    expect(await memberOf(agent)).toMatchObject({
      human: "human-1",
      agent: "triage-bot",
      upstreams: ["github"],
      state: "live",
    });
  });

  it("confirms no one whom it does not know", async () => {
    expect(await rosterOf(deployment, 0).confirm("nobody")).toEqual({ confirmed: false, closed: [], validMs: 0 });
  });

  it("keeps a closed switch over an eviction, and confirms no one in its reach", async () => {
    const agent = await enrolAgent();
    await flip(agent);
    const { rosterShard } = agent.enrolment;
    await evictDurableObject(rosterStub(rosterShard));
    expect(await rosterOf(deployment, rosterShard).confirm(agent.id)).toMatchObject({
      confirmed: false,
      closed: [{ target: { instance: agent.id } }],
    });
    expect(await memberOf(agent)).toMatchObject({ state: "killed" });
  });
});

const inRosterOf = <R>(agent: Agent, work: (roster: Roster, state: DurableObjectState) => R | Promise<R>): Promise<R> =>
  runInDurableObject(rosterStub(agent.enrolment.rosterShard), work);

/** A switch that stands in the roster and was pushed to no one. */
async function unpushed({ id, enrolment }: Agent): Promise<Switch> {
  const sw = switchOf({ reach: "instance", target: { instance: id } });
  const stub = rosterStub(enrolment.rosterShard);
  await runInDurableObject(stub, (_roster, state) => {
    state.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
  });
  await evictDurableObject(stub);
  return sw;
}

describe("a kill", () => {
  it("reaches exactly one of 30 instances", async () => {
    const agents = await Promise.all(Array.from({ length: 30 }, () => enrolAgent()));
    const victim = agents[17]!;
    expect(await flip(victim)).toMatchObject({
      reached: [{ instance: victim.id, answer: { cut: 0, unconfirmed: 0 } }],
    });
    upstream(() => Response.json([]));
    const statuses = await Promise.all(agents.map(async (agent) => (await agent.call(ISSUES)).status));
    expect(statuses).toEqual(agents.map((agent) => (agent === victim ? 401 : 200)));
  });

  it("whose push is lost is certain by time: the instance must ask again, and finds it", async () => {
    const agent = await enrolAgent();
    await unpushed(agent);
    upstream(() => Response.json([]));
    // Its confirmation still runs: that is the bound.
    const passed = await agent.call(ISSUES);
    expect([passed.status, await passed.text()]).toEqual([200, "[]"]);
    const { confirmationMs } = deployment.config.roster;
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + confirmationMs);
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      admitted: false,
      denial: { kind: "unauthenticated", reason: "switched" },
    });
    clock.mockRestore();
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer switched refused");
  });

  it("is found by an instance that starts anew, whatever became of the push", async () => {
    const agent = await enrolAgent();
    await unpushed(agent);
    await evictDurableObject(instanceStub(agent.id));
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "switched" },
    });
  });

  it("refuses the enrolment of whom it has in reach", async () => {
    await switchboardOf(deployment).flip(flipRequest({ reach: "instance", target: { instance: "doomed" } }));
    const agent = await enrolAgent();
    const answer = await instanceOf(deployment, "doomed").enrol({
      enrolment: { ...agent.enrolment, instance: "doomed" },
      humanClaims: {},
      proof: { jti: "j", issuedAtMs: Date.now() },
      deployment: "test",
    });
    expect(answer).toEqual({ enrolled: false, reason: "switched" });
  });
});

describe("enlisting again", () => {
  it("never shortens what the instance was told, and keeps what it said last", async () => {
    const { enrolment } = await enrolAgent();
    const attributes = { ...attributesOf(enrolment), instance: "twice", human: "first" };
    await rosterOf(deployment, 0).enlist(attributes);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 50_000);
    await rosterOf(deployment, 0).enlist({ ...attributes, human: "second" });
    clock.mockRestore();
    const member = (await rosterOf(deployment, 0).list("", 1_000)).find(({ instance }) => instance === "twice");
    expect(member?.human).toBe("second");
    expect(member?.confirmedUntilMs).toBeGreaterThan(Date.now() + deployment.config.roster.confirmationMs + 40_000);
  });
});

describe("who runs calls", () => {
  const admitted = async (agent: Agent) => {
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    return admission.lease;
  };
  const saysOf = ({ mock }: { mock: { calls: unknown[][] } }, { id }: Agent) =>
    mock.calls.filter(([instance]) => instance === id).map(([, isRunning]) => isRunning);

  it("is told again where the word was lost, after a while, and costs no call anything", async () => {
    const agent = await enrolAgent();
    const lease = await admitted(agent);
    const lost = vi.spyOn(Roster.prototype, "confirm").mockRejectedValue(new Error("lost"));
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs);
    for (let i = 0; i < 5; i++) expect(await lease.append(new Uint8Array(1))).toBeTypeOf("number");
    await vi.waitFor(() => expect(saysOf(lost, agent)).toEqual([true]));
    lost.mockRestore();
    const heard = vi.spyOn(Roster.prototype, "confirm");
    expect(await lease.append(new Uint8Array(1))).toBeTypeOf("number");
    expect(saysOf(heard, agent)).toEqual([]);
    clock.mockReturnValue(nowMs + 5_000);
    for (let i = 0; i < 5; i++) expect(await lease.beat()).toBe(true);
    clock.mockRestore();
    await vi.waitFor(() => expect(saysOf(heard, agent)).toEqual([true]));
    await lease.settle(settlement());
  });

  it("is told though a question is on its way that left before anything ran", async () => {
    const agent = await enrolAgent();
    const answered = Promise.withResolvers<void>();
    const confirm = vi.spyOn(Roster.prototype, "confirm").mockImplementation(async () => {
      await answered.promise;
      return { confirmed: true, closed: [], validMs: 60_000 };
    });
    // Asked ahead of need, beside the call that is then admitted.
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + deployment.config.roster.confirmationMs * 0.75);
    const lease = await admitted(agent);
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([false]));
    expect(await lease.beat()).toBe(true);
    expect(saysOf(confirm, agent)).toEqual([false]);
    answered.resolve();
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([false, true]));
    clock.mockRestore();
    await lease.settle(settlement());
  });

  it("is known from a call's first beat, told once, and after an eviction of the roster, too", async () => {
    const agent = await enrolAgent();
    const asked = await inRosterOf(agent, (roster) => vi.spyOn(Object.getPrototypeOf(roster) as Roster, "confirm"));
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    expect(asked).not.toHaveBeenCalledWith(agent.id, expect.anything());
    await admission.lease.beat();
    await vi.waitFor(() => expect(asked).toHaveBeenCalledWith(agent.id, true));
    await admission.lease.beat();
    expect(asked.mock.calls.filter(([instance]) => instance === agent.id)).toHaveLength(1);
    await evictDurableObject(rosterStub(agent.enrolment.rosterShard));
    const running = await runInDurableObject(rosterStub(agent.enrolment.rosterShard), (_roster, { storage }) =>
      new Members(storage.sql).confirmedAfter(Date.now()),
    );
    expect(running.find(({ instance }) => instance === agent.id)?.isRunning).toBe(true);
  });
});

describe("a push that was lost", () => {
  it("cuts the running calls when the roster is asked next, and not only the new ones", async () => {
    const agent = await enrolAgent();
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    await unpushed(agent);
    expect(await admission.lease.beat()).toBe(true);
    const { confirmationMs } = deployment.config.roster;
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + confirmationMs);
    expect(await admission.lease.beat()).toBe(false);
    clock.mockRestore();
    expect(await admission.lease.broken()).toBe("switched");
    expect(await admission.lease.append(new Uint8Array(1))).toBeNull();
  });

  it("is pushed again until it is acknowledged", async () => {
    const agent = await enrolAgent();
    const lost = await inRosterOf(agent, (roster) =>
      vi.spyOn(Object.getPrototypeOf(roster) as Roster, "apply").mockRejectedValue(new Error("lost")),
    );
    const { switch: sw, status } = await flip(agent);
    expect(status).not.toBe("done");
    lost.mockRestore();
    upstream(() => Response.json([]));
    const passed = await agent.call(ISSUES);
    expect([passed.status, await passed.text()]).toEqual([200, "[]"]);
    await runDurableObjectAlarm(boardStub());
    expect(await switchboardOf(deployment).read(sw.id)).toMatchObject({
      status: "done",
      reached: [{ instance: agent.id, answer: { cut: 0, unconfirmed: 0 } }],
    });
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "switched" },
    });
  });
});

describe("a roster that can't be asked", () => {
  it("ends the running calls with the confirmation", async () => {
    const agent = await enrolAgent();
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    await inRosterOf(agent, (_roster, state) => {
      state.storage.sql.exec("DELETE FROM members WHERE instance = ?", agent.id);
    });
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + deployment.config.roster.confirmationMs);
    expect(await admission.lease.beat()).toBe(false);
    clock.mockRestore();
    expect(await admission.lease.broken()).toBe("unconfirmed");
  });

  it("denies: unknown means no", async () => {
    const agent = await enrolAgent();
    await evictDurableObject(instanceStub(agent.id));
    const silent = vi.spyOn(Roster.prototype, "confirm").mockImplementation(() => new Promise(() => {}));
    const answer = await instanceOf(deployment, agent.id).admit(agent.admission());
    expect(answer).toMatchObject({ admitted: false, denial: { kind: "unavailable" } });
    // Calls of other tests still run, and say so.
    expect(silent.mock.calls.filter(([instance]) => instance === agent.id)).toHaveLength(1);
  });
});

describe("members whose task is long over", () => {
  it("are woken in turn, those that never leave too, over a reset of the roster", async () => {
    const { enrolment } = await enrolAgent();
    const shard = 91;
    const names = Array.from({ length: 250 }, (_, i) => `overdue-${String(i).padStart(3, "0")}`);
    const stub = () => rosterStub(shard);
    await runInDurableObject(stub(), (_roster, { storage }) => {
      const members = new Members(storage.sql);
      for (const instance of names)
        members.put({ ...attributesOf(enrolment), instance, deadlineMs: Date.now() - 7_200_000 }, 1, 1);
    });
    const read = vi.spyOn(AgentInstance.prototype, "read").mockResolvedValue(null);
    const turn = async (): Promise<(string | undefined)[]> => {
      read.mockClear();
      await runInDurableObject(stub(), (roster) => roster.alarm());
      return read.mock.contexts.map((instance) => (instance as unknown as HasName).ctx.id.name).toSorted();
    };
    const first = await turn();
    await evictDurableObject(stub());
    expect([first, await turn(), await turn(), await turn()]).toEqual([
      names.slice(0, 100),
      names.slice(100, 200),
      names.slice(200),
      names.slice(0, 100),
    ]);
  }, 20_000);
});

describe("a kill that was lifted long ago", () => {
  it("is final for who is still here, though the configuration says by now that nobody can be", async () => {
    const { enrolment } = await enrolAgent();
    const roster = rosterOf(deployment, 92);
    const human = crypto.randomUUID();
    const weeksMs = deployment.config.grants.taskSeconds * 1_000 + 1_209_600_000;
    // Of a time when tasks might last longer.
    const long = {
      ...attributesOf(enrolment),
      instance: crypto.randomUUID(),
      human,
      deadlineMs: Date.now() + 2 * weeksMs,
    };
    expect(await roster.enlist(long)).toMatchObject({ enlisted: true });
    const sw = switchOf({ reach: "human", target: { human } });
    await roster.apply(sw, 0);
    await roster.open(sw, { atMs: Date.now(), by: "operator-1", reason: "r" });
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + weeksMs);
    await runInDurableObject(rosterStub(92), (object) => object.alarm());
    expect(await roster.confirm(long.instance)).toMatchObject({ confirmed: false, closed: [{ id: sw.id }] });
    await roster.leave(long.instance);
    await runInDurableObject(rosterStub(92), (object) => object.alarm());
    clock.mockRestore();
    const rows = runInDurableObject(rosterStub(92), (_roster, { storage }) =>
      storage.sql.exec("SELECT 1 FROM switches WHERE id = ?", sw.id).toArray(),
    );
    expect(await rows).toEqual([]);
  });
});

/** Whose object it is. */
type HasName = { readonly ctx: { readonly id: { readonly name?: string } } };
