import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Switchboard } from "../../durable-objects/switchboard.ts";
import type { FlipState } from "../../src/control/contract.ts";
import { receiptOf } from "../../src/control/receipt.ts";
import { absent } from "../../src/denial.ts";
import type { Admission, Enrolment, Settlement } from "../../src/instance/contract.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, ISSUES, recordsOf, typesOf, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const SHARD = 0;
let tasks = 0;
/** An instance that the rule of this name watches, of a task of its own. */
const watchedBy = (rule: string, change: Partial<Enrolment> = {}): Promise<Agent> =>
  enrolAgent({
    agent: rule,
    emailDigest: null,
    ancestors: [],
    rosterShard: SHARD,
    task: { id: `build-platform_rules-${++tasks}`, purpose: "test", deadlineMs: Date.now() + 3_600_000 },
    ...change,
  });

const stubOf = (agent: Agent) =>
  env.AGENT_INSTANCE.get(env.AGENT_INSTANCE.idFromName(agent.id)) as DurableObjectStub<AgentInstance>;
const PROBE = absent("route", "no such upstream");
const probe = (agent: Agent): Promise<Admission> =>
  instanceOf(deployment, agent.id).admit(agent.admission({ call: null, denial: PROBE }));
const ask = (agent: Agent): Promise<Admission> => instanceOf(deployment, agent.id).admit(agent.admission());

async function admitted(agent: Agent): Promise<Extract<Admission, { admitted: true }>> {
  const admission = await ask(agent);
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}

/** Makes a whole call. */
async function serve(agent: Agent): Promise<void> {
  const { lease } = await admitted(agent);
  await lease.settle(settlement());
  lease[Symbol.dispose]?.();
}

const settlement = (change: Partial<Settlement> = {}): Settlement => ({
  outcome: "complete",
  head: { status: 200, headers: [], mediaType: "application/json", coding: "identity" },
  tail: new TextEncoder().encode("{}"),
  passedBytes: 0,
  heldBytes: 2,
  forwardedBytes: 0,
  timing: { startedAtMs: 1, firstByteAtMs: 2, lastByteAtMs: 2, endedAtMs: 3 },
  reason: null,
  ...change,
});

const DEAD = { admitted: false, denial: { kind: "unauthenticated", code: "invalid_token", reason: "switched" } };

/** In the switchboard, by which instance caused it. */
async function flipsOf(agent: Agent): Promise<readonly FlipState[]> {
  const board = switchboardOf(deployment);
  const caused = (await board.list(null, 500)).filter(
    ({ switch: sw }) => sw.cause?.kind === "rule" && sw.cause.instance === agent.id,
  );
  return Promise.all(caused.map(async ({ switch: sw }) => (await board.read(sw.id))!));
}
const delivered = (agent: Agent): Promise<FlipState> =>
  vi.waitFor(
    async () => {
      const flips = await flipsOf(agent);
      expect(flips).toHaveLength(1);
      expect(flips[0]).toMatchObject({ status: "done" });
      return flips[0]!;
    },
    { interval: 20 },
  );
const owed = (agent: Agent): Promise<number> =>
  runInDurableObject(
    stubOf(agent),
    (_instance, state) => state.storage.sql.exec("SELECT 1 FROM kept WHERE kind = 'handover'").toArray().length,
  );

describe("an observed rule", () => {
  it("puts its hit on record once a window, and does nothing else", async () => {
    const agent = await watchedBy("observed");
    for (let i = 0; i < 5; i++) expect(await probe(agent)).toMatchObject({ denial: PROBE });
    expect(typesOf(await recordsOf(agent))).toBe("enrolled refused refused refused signal refused refused");
    const [signal] = (await recordsOf(agent)).filter(({ type }) => type === "signal");
    expect(signal).toMatchObject({
      seq: 4,
      instance: agent.id,
      human: "human-1",
      rule: "observed",
      signal: "refusals",
      value: 3,
      threshold: 3,
      windowSeconds: 60,
      mode: "observe",
      act: "kill",
      reach: "human",
    });
    await serve(agent);
    expect([await flipsOf(agent), await owed(agent)]).toEqual([[], 0]);
    const hits = async () => (await recordsOf(agent)).filter(({ type }) => type === "signal").length;
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs + 59_000);
    for (let i = 0; i < 5; i++) await probe(agent);
    expect(await hits()).toBe(1);
    clock.mockReturnValue(nowMs + 65_000);
    await probe(agent);
    clock.mockRestore();
    expect(await hits()).toBe(2);
  });

  it("forgets its window with the object, and nothing else", async () => {
    const agent = await watchedBy("observed");
    await probe(agent);
    await probe(agent);
    await evictDurableObject(stubOf(agent));
    await probe(agent);
    await probe(agent);
    expect(typesOf(await recordsOf(agent))).not.toContain("signal");
    await probe(agent);
    expect(typesOf(await recordsOf(agent))).toContain("signal");
  });

  it("costs an ordinary call no row", async () => {
    const agent = await watchedBy("observed");
    upstream(() => Response.json([]));
    await (await agent.call(ISSUES)).text();
    const rows = await runInDurableObject(stubOf(agent), (_instance, state) => {
      const { sql } = state.storage;
      const exec = sql.exec.bind(sql);
      const counted = { rows: 0 };
      vi.spyOn(sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        const cursor = exec(query, ...bindings);
        if (/^\s*(insert|update|delete)/i.test(query)) counted.rows += cursor.rowsWritten;
        return cursor;
      }) as typeof sql.exec);
      vi.spyOn(state.storage, "setAlarm").mockImplementation(async () => {
        counted.rows++;
      });
      return () => counted.rows;
    });
    expect(await (await agent.call(ISSUES)).text()).toBe("[]");
    expect(rows()).toBe(2);
  });

  it("watches no agent that it does not name", async () => {
    const agent = await watchedBy("triage-bot");
    for (let i = 0; i < 10; i++) await probe(agent);
    expect(typesOf(await recordsOf(agent))).not.toContain("signal");
  });
});

describe("an enforced rule", () => {
  it("stops the instance in the turn of the hit: what tripped it gets its ordinary answer, nothing comes after", async () => {
    const agent = await watchedBy("paused");
    const running = await admitted(agent);
    // All at once: nothing may come between the hit and the stop.
    const answers = await Promise.all(Array.from({ length: 6 }, () => probe(agent)));
    expect(answers.map((one) => !one.admitted && one.denial)).toEqual([
      ...Array(3).fill(PROBE),
      ...Array(3).fill(DEAD.denial),
    ]);
    expect(await running.lease.broken()).toBe("switched");
    expect(await running.lease.append(new Uint8Array(1))).toBeNull();
    expect(await running.lease.settle(settlement({ outcome: "cut" }))).toBe("switched");
    expect(await ask(agent)).toMatchObject(DEAD);

    const { switch: sw } = await delivered(agent);
    expect(sw).toMatchObject({
      reach: "instance",
      target: { instance: agent.id },
      act: "pause",
      by: "rule:paused",
      cause: { kind: "rule", rule: "paused", instance: agent.id },
      reason: "unknown-paths: 3 within 60 s, threshold 3",
      untilMs: null,
    });
    const records = await recordsOf(agent);
    const at = records.findIndex(({ type }) => type === "signal");
    expect(records.slice(at - 1, at + 2)).toMatchObject([
      { type: "refused", decision: { layer: "route" } },
      { type: "signal", rule: "paused", value: 3, mode: "enforce" },
      { type: "switched", switch: sw.id, act: "pause", by: "rule:paused", causedBy: { rule: "paused" } },
    ]);
    // Pushed back to where it came from, it is no second switch.
    expect(records.filter(({ type }) => type === "switched")).toHaveLength(1);
    expect(records.find(({ type }) => type === "answer")).toMatchObject({ cause: "switched", switch: sw.id });
  });

  it("counts who hit it as reached, with the calls that it cut", async () => {
    const agent = await watchedBy("paused");
    const running = await Promise.all([admitted(agent), admitted(agent)]);
    for (const { lease } of running) void lease.broken().then(() => lease.settle(settlement({ outcome: "cut" })));
    for (let i = 0; i < 3; i++) await probe(agent);
    const receipt = receiptOf(await delivered(agent), ORIGIN);
    expect(receipt).toMatchObject({ reached: 1, cut: 2, unconfirmed: 0, unreached: [] });
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
  });

  it("kills for good", async () => {
    const agent = await watchedBy("killed");
    const same = agent.admission();
    const first = await instanceOf(deployment, agent.id).admit(same);
    if (!first.admitted) throw new Error("refused");
    await first.lease.settle(settlement());
    first.lease[Symbol.dispose]?.();
    for (let i = 0; i < 4; i++) await instanceOf(deployment, agent.id).admit(same);
    expect(await ask(agent)).toMatchObject(DEAD);
    const { switch: sw } = await delivered(agent);
    expect(sw).toMatchObject({ act: "kill", by: "rule:killed" });
    await switchboardOf(deployment).lift(sw.id, { by: "admin", email: null, reason: "sorry" });
    await evictDurableObject(stubOf(agent));
    expect(await ask(agent)).toMatchObject(DEAD);
    // A refused attempt of the dead counts for nothing.
    expect((await recordsOf(agent)).filter(({ type }) => type === "signal")).toHaveLength(1);
  });

  it("reaches the others of its task, running and to come, and no other task", async () => {
    const task = { id: "build-platform_rules-shared", purpose: "test", deadlineMs: Date.now() + 3_600_000 };
    const rule = "killed-with-its-task";
    const [culprit, sibling, other] = await Promise.all([
      watchedBy(rule, { task }),
      watchedBy("triage-bot", { task }),
      watchedBy(rule),
    ]);
    const running = await admitted(sibling);
    void running.lease.broken().then(() => running.lease.settle(settlement({ outcome: "cut" })));
    for (let i = 0; i < 3; i++) await probe(culprit);
    expect(await ask(culprit)).toMatchObject(DEAD);
    const receipt = receiptOf(await delivered(culprit), ORIGIN);
    expect(receipt.instances?.map(({ instance }) => instance).sort()).toEqual([culprit.id, sibling.id].sort());
    expect(receipt.cut).toBe(1);
    expect(await ask(sibling)).toMatchObject(DEAD);
    expect(await rosterOf(deployment, SHARD).confirm(sibling.id)).toMatchObject({ confirmed: false });
    await expect(watchedBy("triage-bot", { task })).rejects.toThrow("not enrolled: switched");
    await serve(other);
  });

  it("begins anew when it is resumed", async () => {
    const agent = await watchedBy("paused");
    for (let i = 0; i < 3; i++) await probe(agent);
    const { switch: sw } = await delivered(agent);
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
    await switchboardOf(deployment).lift(sw.id, { by: "admin", email: null, reason: "looked at" });
    await vi.waitFor(() => serve(agent));
    await probe(agent);
    await probe(agent);
    await serve(agent);
    await probe(agent);
    expect(await ask(agent)).toMatchObject(DEAD);
    await vi.waitFor(async () => expect(await flipsOf(agent)).toHaveLength(2));
  });
});

describe("two rules that one attempt trips", () => {
  it("are both carried out", async () => {
    const agent = await watchedBy("twice");
    await probe(agent);
    expect(await ask(agent)).toMatchObject(DEAD);
    const shown = (await recordsOf(agent)).map(({ type, rule, act }) => [type, rule ?? act].join(" "));
    expect(shown.slice(1, 6)).toEqual([
      "refused ",
      "signal twice-paused",
      "switched pause",
      "signal twice-killed",
      "switched kill",
    ]);
    await vi.waitFor(async () => {
      const flips = (await flipsOf(agent)).map(({ switch: sw, status }) => [sw.act, sw.reach, status].join(" "));
      expect(flips.sort()).toEqual(["kill instance done", "pause task done"]);
    });
  });
});

describe("each signal reaches its rule", () => {
  const stopped = async (agent: Agent, rule: string, value: number) => {
    expect(await ask(agent)).toMatchObject(DEAD);
    const [signal] = (await recordsOf(agent)).filter(({ type }) => type === "signal");
    expect(signal).toMatchObject({ rule, value });
    expect(await delivered(agent)).toMatchObject({ switch: { by: `rule:${rule}` } });
  };
  const limits = { ...deployment.config.agents["triage-bot"]!.limits };

  it("rate-limit-hits", async () => {
    const agent = await watchedBy("limits-hit", { limits: { ...limits, concurrency: 1 } });
    const { lease } = await admitted(agent);
    expect(await ask(agent)).toMatchObject({ denial: { kind: "limited", limit: "concurrency" } });
    expect(await lease.broken()).toBe("switched");
    await lease.settle(settlement({ outcome: "cut" }));
    await stopped(agent, "limits-hit", 1);
  });

  it("calls-burn: the call that trips it is cut like every other that runs", async () => {
    const agent = await watchedBy("calls-burnt", { limits: { ...limits, calls: 4 } });
    const first = await admitted(agent);
    expect(await first.lease.beat()).toBe(true);
    const second = await admitted(agent);
    for (const { lease } of [first, second]) {
      expect(await lease.broken()).toBe("switched");
      expect(await lease.settle(settlement({ outcome: "cut" }))).toBe("switched");
    }
    await stopped(agent, "calls-burnt", 0.5);
  });

  it("bytes-burn, by a run of an answer", async () => {
    const agent = await watchedBy("bytes-burnt", { limits: { ...limits, bytes: 1_000 } });
    const { lease } = await admitted(agent);
    expect(await lease.append(new Uint8Array(499))).not.toBeNull();
    expect(await lease.append(new Uint8Array(1))).toBeNull();
    expect(await lease.broken()).toBe("switched");
    await lease.settle(settlement({ outcome: "cut" }));
    await stopped(agent, "bytes-burnt", 0.5);
  });

  it("upstream-errors: the answer that trips it is passed whole, as it stands on record", async () => {
    const agent = await watchedBy("upstream-broken");
    const head = { status: 500, headers: [], mediaType: null, coding: "identity" };
    expect(await (await admitted(agent)).lease.settle(settlement({ head }))).toBe(true);
    const [second, running] = [await admitted(agent), await admitted(agent)];
    expect(await second.lease.settle(settlement({ head: null, outcome: "timeout", tail: new Uint8Array(0) }))).toBe(
      true,
    );
    expect(await running.lease.broken()).toBe("switched");
    await running.lease.settle(settlement({ outcome: "cut" }));
    const outcomes = (await recordsOf(agent)).filter(({ type }) => type === "answer").map((line) => line["outcome"]);
    expect(outcomes).toEqual(["complete", "timeout", "cut"]);
    await stopped(agent, "upstream-broken", 2);
  });
});

describe("a switchboard that does not answer at once", () => {
  const tripped = async (rule: string, flip: () => Promise<never>): Promise<Agent> => {
    const agent = await watchedBy(rule);
    vi.spyOn(Switchboard.prototype, "flip").mockImplementation(flip);
    for (let i = 0; i < 3; i++) await probe(agent);
    // Kept with the answer, and not by what comes after it: nobody else knows of this switch.
    const kept = await runInDurableObject(
      stubOf(agent),
      (_instance, state) => state.storage.sql.exec("SELECT 1 FROM kept WHERE kind = 'switch'").toArray().length,
    );
    expect(kept).toBe(1);
    expect(await ask(agent)).toMatchObject(DEAD);
    expect([await flipsOf(agent), await owed(agent)]).toEqual([[], 1]);
    return agent;
  };
  const outOfReach = () => Promise.reject(new Error("out of reach"));

  it("hears of it as soon as it can, once", async () => {
    const agent = await tripped("paused", outOfReach);
    await runDurableObjectAlarm(stubOf(agent));
    expect(await owed(agent)).toBe(1);
    vi.restoreAllMocks();
    await runDurableObjectAlarm(stubOf(agent));
    await delivered(agent);
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
    await runDurableObjectAlarm(stubOf(agent));
    expect(await flipsOf(agent)).toHaveLength(1);
  });

  it("opens no pause by a roster that has not heard of it", async () => {
    const agent = await tripped("paused", outOfReach);
    for (let i = 1; i <= 3; i++) {
      const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + i * 2_000);
      const answer = await ask(agent);
      clock.mockRestore();
      expect(answer).toMatchObject(DEAD);
    }
    await evictDurableObject(stubOf(agent));
    expect(await ask(agent)).toMatchObject(DEAD);
    expect((await recordsOf(agent)).filter(({ type }) => type === "switched")).toHaveLength(1);
  });

  it("gets it from the object's next life", async () => {
    const agent = await tripped("paused", () => new Promise<never>(() => {}));
    await runInDurableObject(stubOf(agent), (_instance, state) => state.abort("reset by a test")).catch(() => {});
    vi.restoreAllMocks();
    const armedAtMs = await runInDurableObject(stubOf(agent), (_instance, state) => state.storage.getAlarm());
    expect(armedAtMs).toBeLessThanOrEqual(Date.now() + 2_000);
    await runDurableObjectAlarm(stubOf(agent));
    const { reached } = await delivered(agent);
    expect(reached).toMatchObject([{ instance: agent.id, answer: { unconfirmed: 0 } }]);
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
    expect((await recordsOf(agent)).filter(({ type }) => type === "switched")).toHaveLength(1);
    expect(await ask(agent)).toMatchObject(DEAD);
  });

  it("had it, but its answer was lost: one switch all the same", async () => {
    const { flip } = Switchboard.prototype;
    const agent = await watchedBy("paused");
    vi.spyOn(Switchboard.prototype, "flip").mockImplementation(async function (this: Switchboard, request) {
      await flip.call(this, request);
      throw new Error("the answer was lost");
    });
    for (let i = 0; i < 3; i++) await probe(agent);
    await delivered(agent);
    expect(await owed(agent)).toBe(1);
    vi.restoreAllMocks();
    await runDurableObjectAlarm(stubOf(agent));
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
    expect(await flipsOf(agent)).toHaveLength(1);
  });
});

describe("a pause for a time", () => {
  it("says until when, and is over when the switchboard says so", async () => {
    const agent = await watchedBy("paused-for-a-time");
    const beforeMs = Date.now();
    for (let i = 0; i < 2; i++) await probe(agent);
    const { switch: sw } = await delivered(agent);
    expect(sw.untilMs).toBeGreaterThanOrEqual(beforeMs + 3_600_000);
    await vi.waitFor(async () => expect(await owed(agent)).toBe(0));
    const board = env.SWITCHBOARD.get(env.SWITCHBOARD.idFromName("switchboard"));
    const clock = vi.spyOn(Date, "now").mockReturnValue(sw.untilMs!);
    await runDurableObjectAlarm(board);
    clock.mockRestore();
    await vi.waitFor(() => serve(agent));
  });
});
