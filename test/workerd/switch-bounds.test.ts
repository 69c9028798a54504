import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Roster } from "../../durable-objects/roster.ts";
import { flipBody } from "../../src/admin/switches.ts";
import { receiptOf } from "../../src/control/receipt.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  flip,
  flipRequest,
  instanceStub,
  operator,
  recordsOf,
  rosterStub,
  settlement,
  switchOf,
  verdictOf,
  watchRecords,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = switchboardOf(deployment);

async function admitted(agent: Agent) {
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
  if (!admission.admitted) throw new Error("not admitted");
  return admission.lease;
}

/** Its roster's end of the confirmation, as it stands there. */
async function confirmUntil(agent: Agent, untilMs: number): Promise<void> {
  const stub = rosterStub(agent.enrolment.rosterShard);
  await runInDurableObject(stub, (_roster, { storage }) => {
    storage.sql.exec("UPDATE members SET confirmed_until_ms = ? WHERE instance = ?", untilMs, agent.id);
  });
  await evictDurableObject(stub);
}

describe("a confirmation that ran out a moment ago", () => {
  it("may still cover a running call: it is cut, and the switch is not done before", async () => {
    const human = crypto.randomUUID();
    const agent = await enrolAgent({ human });
    const lease = await admitted(agent);
    await confirmUntil(agent, Date.now() - 1_000);
    const flipping = flip({ reach: "human", target: { human } });
    expect(await lease.broken()).toBe("switched");
    await lease.settle(settlement({ outcome: "cut" }));
    expect(receiptOf(await flipping, "x")).toMatchObject({ status: "done", reached: 1, idle: 0, cut: 1 });
  });

  it("is long over after half a minute: who held it is idle", async () => {
    const human = crypto.randomUUID();
    await confirmUntil(await enrolAgent({ human }), Date.now() - 31_000);
    expect(await flip({ reach: "human", target: { human } })).toMatchObject({ status: "done", reached: [], idle: 1 });
  });

  it("is none, where its answer came when it was over", async () => {
    const agent = await enrolAgent();
    await evictDurableObject(instanceStub(agent.id));
    const atMs = Date.now();
    let now = atMs;
    vi.spyOn(Date, "now").mockImplementation(() => now);
    const { confirm } = Roster.prototype;
    vi.spyOn(Roster.prototype, "confirm").mockImplementation(async function (this: Roster, id) {
      const answer = await confirm.call(this, id);
      now = atMs + answer.validMs + 1_000;
      return answer;
    });
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    expect(admission).toMatchObject({ admitted: false, denial: { kind: "unavailable" } });
  });
});

describe("two switches on one call", () => {
  it("leave its last byte with the one that cut it: a receipt without a cut has none", async () => {
    const human = crypto.randomUUID();
    const agent = await enrolAgent({ human });
    const lease = await admitted(agent);
    const instance = instanceOf(deployment, agent.id);
    const target = { human };
    const [first, second] = [switchOf({ act: "pause", reach: "human", target }), switchOf({ reach: "human", target })];
    const closing = [instance.close(first), instance.close(second)];
    await lease.broken();
    // Calls on one stub come in order: both are there now.
    await instance.introspect();
    const nowMs = Date.now();
    await lease.settle(
      settlement({
        outcome: "cut",
        timing: { startedAtMs: nowMs, firstByteAtMs: nowMs, lastByteAtMs: nowMs, endedAtMs: nowMs },
      }),
    );
    expect((await Promise.all(closing)).map(({ cut, lastByteAgeMs }) => [cut, lastByteAgeMs === null])).toEqual([
      [1, false],
      [0, true],
    ]);
  });
});

describe("an opening", () => {
  it("is one: who comes second finds it open, and takes nobody's place", async () => {
    const human = crypto.randomUUID();
    const pause = { act: "pause", reach: "human", target: { human } } as const;
    await flip(pause);
    const second = await flip(pause);
    const [, lifted] = await Promise.all([
      board.resume(pause, operator("one")),
      board.lift(second.switch.id, operator("two")),
    ]);
    expect(lifted.kind).toBe("open-already");
    expect((await board.read(second.switch.id))?.opened?.by).toBe("one");
  });

  it("by time waits for no shard before a kill is carried on", async () => {
    const agent = await enrolAgent({ human: crypto.randomUUID() });
    const untilMs = Date.now() + 600_000;
    const timed = await flip({ act: "pause", reach: "human", target: { human: "nobody" }, untilMs });
    const opens: string[] = [];
    const held = Promise.withResolvers<void>();
    vi.spyOn(Date, "now").mockReturnValue(untilMs);
    const { open } = Roster.prototype;
    vi.spyOn(Roster.prototype, "open").mockImplementation(async function (this: Roster, sw, opening) {
      opens.push(sw.id);
      await held.promise;
      return open.call(this, sw, opening);
    });
    const kill = flipRequest({ reach: "human", target: { human: agent.enrolment.human } });
    await runInDurableObject(boardStub(), (_board, { storage }) => {
      const { idempotencyKey: _, email: __, ...sw } = kill;
      storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", kill.id, JSON.stringify({ ...sw, atMs: 1 }));
    });
    const ringing = runDurableObjectAlarm(boardStub());
    await vi.waitFor(() => expect(opens).toContain(timed.switch.id));
    await vi.waitFor(async () => expect((await board.read(kill.id))?.status).toBe("done"));
    held.resolve();
    await ringing;
  });

  it("that comes before the pause is on record stays one over a reset", async () => {
    const agent = await enrolAgent();
    const instance = instanceOf(deployment, agent.id);
    const pause = switchOf({ act: "pause", reach: "instance", target: { instance: agent.id } });
    await instance.close(pause);
    await instance.reopen(pause.id, null);
    await evictDurableObject(instanceStub(agent.id));
    expect(await verdictOf(agent)).toBe("admitted");
    const switched = (await recordsOf(agent)).filter(({ type }) => type === "switched");
    expect(switched.map(({ act }) => act)).toEqual(["pause", "resume"]);
  });
});

it("progress has the figures of the receipt", async () => {
  const human = crypto.randomUUID();
  await enrolAgent({ human });
  const { switch: sw } = await flip({ reach: "human", target: { human } });
  const receipt = receiptOf((await board.read(sw.id))!, "x");
  const { status, reached, idle, cut, unconfirmed, missing } = receipt;
  expect(await board.progress(sw.id)).toEqual({
    switch: sw.id,
    status,
    reached,
    idle,
    cut,
    unconfirmed,
    unreached: missing,
  });
  expect(reached).toBe(1);
  expect(await board.progress(crypto.randomUUID())).toBeNull();
});

describe("a revocation", () => {
  it("keeps on the roster whose Workers lost a reset object: they have confirmed nothing", async () => {
    const agent = await enrolAgent();
    await admitted(agent);
    const instance = () => instanceStub(agent.id);
    await runInDurableObject(instance(), (_instance, state) => state.abort("reset by a test")).catch(() => {});
    expect(await instanceOf(deployment, agent.id).revoke("platform", "test")).toMatchObject({ unconfirmed: 1 });
    const members = await rosterOf(deployment, agent.enrolment.rosterShard).list("", 1_000);
    expect(members.map(({ instance }) => instance)).toContain(agent.id);
  });
});

describe("an end at the deadline", () => {
  const resetOf = ({ id }: Agent) =>
    runInDurableObject(instanceStub(id), (_instance, state) => state.abort("reset by a test")).catch(() => {});
  const task = () => ({ id: "build-platform_end", purpose: "test", deadlineMs: Date.now() + 3_600_000 });
  const isMember = async ({ id, enrolment }: Agent) =>
    (await rosterOf(deployment, enrolment.rosterShard).list("", 1_000)).some(({ instance }) => instance === id);
  const ring = (agent: Agent) => runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());

  it("leaves the roster at once where every Worker has confirmed", async () => {
    const agent = await enrolAgent({ human: crypto.randomUUID(), task: task() });
    const lease = await admitted(agent);
    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    const ending = ring(agent);
    expect(await lease.broken()).toBe("expired");
    await lease.settle(settlement({ outcome: "cut" }));
    await ending;
    clock.mockRestore();
    expect(await isMember(agent)).toBe(false);
  });

  it.each([
    false,
    true,
  ])("keeps whose Worker is silent within reach, and a kill says so until it has surely cut (reset meanwhile: %s)", async (isReset) => {
    const human = crypto.randomUUID();
    const agent = await enrolAgent({ human, task: task() });
    await admitted(agent);
    const endMs = agent.enrolment.task.deadlineMs + 1;
    const clock = vi.spyOn(Date, "now").mockReturnValue(endMs);
    await ring(agent);
    if (isReset) await resetOf(agent);
    clock.mockReturnValue(endMs + 2_000);
    expect(await isMember(agent)).toBe(true);
    const killed = await flip({ reach: "human", target: { human } });
    expect(receiptOf(killed, "x")).toMatchObject({ status: "pending", reached: 1, unconfirmed: 1 });
    const rung = await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => storage.getAlarm());
    expect(rung).not.toBeNull();
    clock.mockReturnValue(endMs + 29_000);
    await ring(agent);
    expect(await isMember(agent)).toBe(true);
    clock.mockReturnValue(endMs + 30_000);
    await ring(agent);
    expect(await isMember(agent)).toBe(false);
    clock.mockReturnValue(endMs + 33_000);
    await runDurableObjectAlarm(boardStub());
    expect((await board.read(killed.switch.id))?.status).toBe("done");
  });

  it("puts on record what was closed while its Worker was silent", async () => {
    const human = crypto.randomUUID();
    const agent = await enrolAgent({ human, task: task() });
    await admitted(agent);
    const sw = switchOf({ reach: "human", target: { human } });
    const stub = rosterStub(agent.enrolment.rosterShard);
    await runInDurableObject(stub, (_roster, { storage }) => {
      storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    });
    await evictDurableObject(stub);
    const types: string[] = [];
    vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    await runInDurableObject(instanceStub(agent.id), async (instance, { storage }) => {
      watchRecords(storage.sql, types);
      await instance.alarm();
    });
    expect(types).toEqual(["switched", "answer", "ended", "seal"]);
  });
});

it("a time that no alarm can be set to, and no reader can print, is refused", () => {
  const body = { act: "kill", reach: "everything", target: {}, reason: "r" };
  expect(flipBody.safeParse({ ...body, untilMs: Date.UTC(2100, 0, 1) }).success).toBe(true);
  expect(flipBody.safeParse({ ...body, untilMs: Date.UTC(2100, 0, 1) + 1 }).error?.issues[0]?.path).toEqual([
    "untilMs",
  ]);
});
