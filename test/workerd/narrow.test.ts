// A human who has lost groups: as certain as a kill, and no more than what was lost.

import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Roster } from "../../durable-objects/roster.ts";
import type { FlipRequest, FlipState } from "../../src/control/contract.ts";
import { receiptOf } from "../../src/control/receipt.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import type { AdmitRequest, Enrolment, LeaseCalls } from "../../src/instance/contract.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import type { Json } from "../../src/scope/call.ts";
import { askFor, childOf, enrolmentOf, rootOf, said } from "./family-kit.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  enrolIdle,
  flip,
  flipRequest,
  ISSUES,
  instanceStub,
  operator,
  recordsOf,
  rosterStub,
  SCOPE,
  settlement,
  switchOf,
  typesOf,
  upstream,
  verdictOf,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = () => switchboardOf(deployment);
const uuid = () => crypto.randomUUID();
const DAY_MS = 86_400_000;
const BOTH = ["engineering", "readers"];
const LOST = "not within the ceiling since the human lost a group";
const READ: readonly Json[] = [{ ...SCOPE[0]!, operations: [SCOPE[0]!.operations[0]!] }];
const COMMENT = "/github/repos/acme/widgets/issues/7/comments";

const enrol = (change: Partial<Enrolment> = {}) =>
  enrolAgent({ human: uuid(), groups: BOTH, groupsAtMs: Date.now() - 1_000, ...change });
const narrow = (human: string, groups: readonly string[], change: Partial<FlipRequest> = {}): Promise<FlipState> =>
  flip({ act: "narrow", reach: "human", target: { human }, groups, ...change });
/** What engineering alone may do. */
const comment = (agent: Agent): AdmitRequest =>
  agent.admission({
    call: {
      upstream: "github",
      method: "POST",
      segments: ["repos", "acme", "widgets", "issues", "7", "comments"],
      query: [],
      body: { kind: "none" },
    },
    request: { method: "POST", target: COMMENT, headers: [], body: new Uint8Array(0), bodyFollows: false },
  });
async function running(agent: Agent, request = agent.admission()): Promise<LeaseCalls> {
  const admission = await instanceOf(deployment, agent.id).admit(request);
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission.lease;
}
/** Why it may not comment; else "admitted". */
async function commentVerdict(agent: Agent): Promise<string> {
  const admission = await instanceOf(deployment, agent.id).admit(comment(agent));
  if (!admission.admitted) return "reason" in admission.denial ? admission.denial.reason : admission.denial.kind;
  await admission.lease.settle(settlement());
  return "admitted";
}
const verdicts = async (agent: Agent) => [await verdictOf(agent), await commentVerdict(agent)];
const enrolling = (agent: Agent, change: Partial<Enrolment>) => {
  const instance = uuid();
  return instanceOf(deployment, instance).enrol({
    enrolment: { ...agent.enrolment, instance, ...change },
    humanClaims: {},
    proof: { jti: uuid(), issuedAtMs: Date.now() },
    deployment: "test",
  });
};
const abort = async (stub: DurableObjectStub<never>) => {
  await runInDurableObject(stub, (_o: object, state) => state.abort("reset by a test")).catch(() => {});
};
const doneOf = (id: string): Promise<FlipState> =>
  vi.waitFor(
    async () => {
      await runDurableObjectAlarm(boardStub()).catch(() => false);
      const state = await board().read(id);
      expect(state?.status).toBe("done");
      return state!;
    },
    { timeout: 15_000, interval: 100 },
  );

describe("a human who loses a group", () => {
  it("loses what it alone allowed, running calls included, and nothing else", async () => {
    const agent = await enrol();
    const { human } = agent.enrolment;
    const [reading, commenting] = [await running(agent), await running(agent, comment(agent))];
    const flipping = narrow(human, ["readers"]);
    expect(await commenting.broken()).toBe("narrowed");
    expect(await commenting.beat()).toBe(false);
    expect(await commenting.settle(settlement({ outcome: "cut" }))).toBe("narrowed");
    const { switch: sw, status, reached } = await flipping;
    expect([status, reached]).toMatchObject(["done", [{ instance: agent.id, answer: { cut: 1, unconfirmed: 0 } }]]);
    expect(await reading.beat()).toBe(true);
    expect(await reading.settle(settlement())).toBe(true);
    expect(await verdicts(agent)).toEqual(["admitted", LOST]);
    expect(await instanceOf(deployment, agent.id).introspect()).toMatchObject({ state: "active", groups: ["readers"] });

    const records = await recordsOf(agent);
    const by = ({ decision }: (typeof records)[number]) =>
      (decision as { ceilings: { layer: string; at: string }[] }).ceilings.find(({ layer }) => layer === "entitlement")!
        .at;
    expect(typesOf(records)).toBe("enrolled call call switched answer answer call answer refused");
    const calls = records.filter(({ type }) => type === "call");
    expect(calls.map(by)).toEqual([
      "entitlements.groups.engineering[0]",
      "entitlements.groups.engineering[0]",
      "entitlements.groups.readers[0]",
    ]);
    expect(records[3]).toMatchObject({ act: "narrow", switch: sw.id, groups: ["readers"], groupsAt: sw.eventAtMs });
    expect(records[4]).toMatchObject({ call: 2, outcome: "cut", cause: "narrowed", switch: sw.id });
    expect(records[5]).toMatchObject({ call: 1, outcome: "complete" });
    expect(records[8]).toMatchObject({ decision: { allowed: false, layer: "entitlement", reason: LOST } });
    const shard = rosterOf(deployment, agent.enrolment.rosterShard);
    const member = (await shard.list("", 1_000)).find(({ instance }) => instance === agent.id);
    expect(member).toMatchObject({ state: "live", narrowedBy: [sw.id] });
  });

  it("is to the agent as if it had never been granted; a running answer is cut", async () => {
    upstream(
      () =>
        new Response(
          new ReadableStream({
            type: "bytes",
            start: (controller: ReadableByteStreamController) =>
              controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
          } as UnderlyingByteSource),
          { headers: { "content-type": "text/event-stream" } },
        ),
    );
    const agent = await enrol();
    const readers = await Promise.all(
      [agent.call(ISSUES), agent.call(COMMENT, { method: "POST" })].map(async (one) => (await one).body!.getReader()),
    );
    for (const reader of readers) await reader.read();
    const receipt = receiptOf(await narrow(agent.enrolment.human, ["readers"]), "x");
    expect(receipt).toMatchObject({ status: "done", cut: 1 });
    await expect(readers[1]!.read()).rejects.toThrow();
    const [refused, unknown] = [
      await agent.call(COMMENT, { method: "POST" }),
      await agent.call("/github/nothing", { method: "POST" }),
    ];
    expect([refused.status, await refused.text()]).toEqual([404, await unknown.text()]);
    await readers[0]!.cancel();
  });

  it("by address as by id; others go on", async () => {
    const digest = emailDigest(`${uuid()}@acme.example`);
    const [hers, other] = [await enrol({ emailDigest: digest }), await enrol()];
    await narrow(digest, []);
    expect(await verdicts(hers)).toEqual([LOST, LOST]);
    expect(await verdicts(other)).toEqual(["admitted", "admitted"]);
  });

  it("twice, has what both leave, in whatever order they come", async () => {
    const agent = await enrol({ groupsAtMs: Date.now() - 60_000 });
    const { human } = agent.enrolment;
    await narrow(human, ["engineering"], { eventAtMs: Date.now() - 10_000 });
    expect(await verdicts(agent)).toEqual(["admitted", "admitted"]);
    await narrow(human, ["readers"], { eventAtMs: Date.now() - 20_000 });
    expect(await verdicts(agent)).toEqual([LOST, LOST]);
  });

  it("and gets it back, has it with the next ID token, and not for what was granted before", async () => {
    const before = await enrol();
    const { human } = before.enrolment;
    await narrow(human, ["readers"]);
    await narrow(human, BOTH);
    expect(await verdicts(before)).toEqual(["admitted", LOST]);
    const after = await enrol({ human, groupsAtMs: Date.now() + 5 });
    expect(await verdicts(after)).toEqual(["admitted", "admitted"]);
    expect(typesOf(await recordsOf(after))).not.toContain("switched");
  });

  it("keeps what is theirs by name, unless the provider does not vouch for the address", async () => {
    const digest = emailDigest("named@acme.example");
    const agent = await enrol({ emailDigest: digest });
    await narrow(agent.enrolment.human, []);
    expect(await verdicts(agent)).toEqual(["admitted", "admitted"]);
    const [call] = (await recordsOf(agent)).filter(({ type }) => type === "call");
    const by = { layer: "entitlement", at: `entitlements.humans.${digest}[0]` };
    expect(call).toMatchObject({ decision: { ceilings: expect.arrayContaining([expect.objectContaining(by)]) } });
    expect(await verdictOf(await enrol({ emailDigest: digest, emailUnverified: true, groups: [] }))).toBe(
      "not within the ceiling",
    );
  });
});

describe("a tree of sub-agents of such a human", () => {
  it("loses at once what its root loses, and has it in no later child, though no push gets through to the parent", async () => {
    upstream(() => Response.json([]));
    const root = await rootOf({ human: uuid(), groups: BOTH, groupsAtMs: Date.now() - 1_000 });
    const other = await rootOf({ human: uuid(), groups: BOTH, groupsAtMs: Date.now() - 1_000 });
    const limits = { task_limits: '{"concurrency":20,"burst":50,"callsPerSecond":50}' };
    const child = await childOf(root, limits);
    const below = await childOf(child);
    const read = { authorization_details: JSON.stringify(READ) };
    const { human } = root.agent.enrolment;
    await narrow(human, ["readers"]);
    for (const { id } of [root, child, below])
      expect(await instanceOf(deployment, id).introspect()).toMatchObject({ state: "active", groups: ["readers"] });
    const beyond = /^invalid_authorization_details: .*: '.*' exceeds the human's entitlement$/;
    expect(said(await askFor(root))).toMatch(beyond);
    expect(said(await askFor(child))).toMatch(beyond);
    const later = await childOf(child, { ...read, task_limits: '{"concurrency":2,"burst":2,"callsPerSecond":1}' });
    expect((await enrolmentOf(later.id)).groups).toEqual(["readers"]);
    expect(await later.call()).toBe(200);

    // The parent has not heard of the next one; the child's roster has.
    const close = vi.spyOn(AgentInstance.prototype, "close").mockRejectedValue(new Error("lost"));
    await narrow(human, []);
    expect(await instanceOf(deployment, child.id).introspect()).toMatchObject({ groups: ["readers"] });
    expect(said(await askFor(child, { form: read }))).toMatch(/'GET .*' exceeds the human's entitlement$/);
    close.mockRestore();
    expect(await other.call()).toBe(200);
  });
});

describe("somebody who comes with an older ID token", () => {
  it("is refused what was lost, and is on no roster; with a newer one it is nobody's business", async () => {
    const template = await enrol();
    const { human, rosterShard } = template.enrolment;
    await narrow(human, ["readers"]);
    expect(await enrolling(template, {})).toEqual({ enrolled: false, reason: "narrowed", groups: ["readers"] });
    const members = await rosterOf(deployment, rosterShard).membersOf(human, "", 10);
    expect(members.map(({ instance }) => instance)).toEqual([template.id]);
    expect(await enrolling(template, { groupsAtMs: Date.now() + 5 })).toEqual({ enrolled: true });
  });

  it("is enrolled where its scope is within what is left, and has the narrowing on record", async () => {
    const template = await enrol();
    const { human } = template.enrolment;
    await narrow(human, ["readers"]);
    const agent = await enrol({ human, scope: READ });
    expect(typesOf(await recordsOf(agent))).toBe("enrolled switched");
    expect(await verdicts(agent)).toEqual(["admitted", LOST]);
  });

  it("though that was lost long ago: a sub-agent works on its parent's word", async () => {
    const groupsAtMs = Date.now() - 3 * DAY_MS;
    const parent = await enrol({ groupsAtMs });
    const { human } = parent.enrolment;
    const { switch: sw } = await narrow(human, ["readers"], { eventAtMs: Date.now() - 2 * DAY_MS });
    expect(sw.untilMs).toBeLessThan(Date.now());
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(boardStub());
        expect((await board().read(sw.id))?.opened).toMatchObject({ by: "expiry" });
      },
      { interval: 100 },
    );
    expect(await enrolling(parent, { ancestors: [parent.id] })).toMatchObject({ reason: "narrowed" });
    // A shard that comes up after that, too.
    expect(await enrolling(parent, { ancestors: [parent.id], rosterShard: 150 })).toMatchObject({ reason: "narrowed" });
  });

  it("races with it: between the roster's word and the enrolment it is lost all the same", async () => {
    const template = await enrol();
    const { human } = template.enrolment;
    const { enlist } = Roster.prototype;
    vi.spyOn(Roster.prototype, "enlist").mockImplementation(async function (this: Roster, ...asked) {
      const answer = await enlist.apply(this, asked);
      await narrow(human, ["readers"]);
      return answer;
    });
    const agent = await enrol({ human });
    vi.restoreAllMocks();
    expect(await verdicts(agent)).toEqual(["admitted", LOST]);
    expect(typesOf((await recordsOf(agent)).slice(0, 2))).toBe("enrolled switched");
  });

  it("races with it, whenever it comes: nobody does what was lost once the receipt says done", async () => {
    const template = await enrol();
    for (let round = 0; round < 6; round++) {
      const human = uuid();
      const enrolments = Array.from({ length: 4 }, () => enrol({ human }).catch(() => null));
      for (let turns = 0; turns < round; turns++) await Promise.resolve();
      if (round > 3) await enrolments[0];
      const { switch: sw } = await narrow(human, ["readers"]);
      await doneOf(sw.id);
      for (const agent of await Promise.all(enrolments))
        if (agent !== null) expect(await verdicts(agent)).toEqual(["admitted", LOST]);
      expect(await enrolling(template, { human })).toMatchObject({ reason: "narrowed" });
    }
  }, 30_000);

  it("with a key that was told of it, and comes again with a newer token: it does not count", async () => {
    const template = await enrol();
    const instance = uuid();
    const sw = { ...switchOf({ act: "narrow", reach: "human", target: { human: "x" } }), groups: [], eventAtMs: 5 };
    await instanceOf(deployment, instance).close(sw);
    await instanceOf(deployment, instance).enrol({
      enrolment: { ...template.enrolment, instance },
      humanClaims: {},
      proof: { jti: uuid(), issuedAtMs: Date.now() },
      deployment: "test",
    });
    expect(await verdicts({ ...template, id: instance })).toEqual(["admitted", "admitted"]);
  });
});

describe("an instance that was not there", () => {
  it("idle and put away, hears of it with its next call, also when its time is over", async () => {
    const groupsAtMs = Date.now() - 3 * DAY_MS;
    const agent = await enrolIdle({ human: uuid(), groups: BOTH, groupsAtMs });
    const state = await narrow(agent.enrolment.human, ["readers"], { eventAtMs: Date.now() - 2 * DAY_MS });
    expect(state).toMatchObject({ status: "done", reached: [], idle: 1 });
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(boardStub());
        expect((await board().read(state.switch.id))?.opened).not.toBeNull();
      },
      { interval: 100 },
    );
    await evictDurableObject(rosterStub(agent.enrolment.rosterShard));
    expect(await verdicts(agent)).toEqual(["admitted", LOST]);
    // And has it for good: put away once more.
    await evictDurableObject(instanceStub(agent.id));
    expect(await verdicts(agent)).toEqual(["admitted", LOST]);
    const switched = (await recordsOf(agent)).filter(({ type }) => type === "switched");
    expect(switched).toMatchObject([{ act: "narrow", switch: state.switch.id }]);
  });

  it("out of reach: it is cut with its next confirmation, and until then the switch is not done", async () => {
    const agent = await enrol();
    const lost = vi.spyOn(AgentInstance.prototype, "close").mockRejectedValue(new Error("lost"));
    const [reading, commenting] = [await running(agent), await running(agent, comment(agent))];
    const state = await narrow(agent.enrolment.human, ["readers"]);
    expect(receiptOf(state, "x")).toMatchObject({ status: "pending", reached: 0, missing: 1 });
    expect(await commenting.beat()).toBe(true);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 61_000);
    expect(await commenting.beat()).toBe(false);
    expect(await commenting.broken()).toBe("narrowed");
    expect(await reading.beat()).toBe(true);
    clock.mockRestore();
    await commenting.settle(settlement({ outcome: "cut" }));
    lost.mockRestore();
    expect((await doneOf(state.switch.id)).reached).toMatchObject([{ answer: { cut: 1, unconfirmed: 0 } }]);
    expect(await reading.settle(settlement())).toBe(true);
  });
});

describe("a narrowing while calls come in", () => {
  const objects: [string, (agents: readonly Agent[]) => Promise<void>][] = [
    ["nothing", async () => {}],
    ["the switchboard", async () => abort(boardStub() as never)],
    [
      "every shard",
      async (agents) => {
        for (const shard of new Set(agents.map(({ enrolment }) => enrolment.rosterShard)))
          await abort(rosterStub(shard) as never);
      },
    ],
    ["an instance", async ([first]) => abort(instanceStub(first!.id) as never)],
  ];
  for (const [what, fault] of objects)
    for (const turns of [0, 3, 40])
      it(`with a fault after ${turns} turns: ${what}`, async () => {
        const human = uuid();
        const agents = await Promise.all(Array.from({ length: 4 }, () => enrol({ human })));
        let isStopped = false;
        let isDone = false;
        const late: string[] = [];
        const causes = new Set<string>();
        const calling = agents.map(async (agent) => {
          while (!isStopped) {
            const wasDone = isDone;
            try {
              const admission = await instanceOf(deployment, agent.id).admit(comment(agent));
              if (!admission.admitted) {
                causes.add("reason" in admission.denial ? admission.denial.reason : admission.denial.kind);
                break;
              }
              if (wasDone) late.push(agent.id);
              causes.add(await admission.lease.broken());
              await admission.lease.settle(settlement({ outcome: "cut" }));
            } catch {
              // The object was reset.
            }
          }
        });
        await vi.waitFor(async () => {
          for (const agent of agents) expect(typesOf(await recordsOf(agent))).toContain("call");
        });
        const reading = await Promise.all(agents.map((agent) => running(agent)));
        const request = flipRequest({ act: "narrow", reach: "human", target: { human }, groups: ["readers"] });
        const flipping = board()
          .flip(request)
          .catch(() => null);
        for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
        await fault(agents);
        await flipping;
        if ((await board().read(request.id)) === null) await board().flip(request);
        const isOrphaned = what === "an instance";
        // What nobody confirmed takes its half minute: that is another test's.
        if (!isOrphaned) await doneOf(request.id);
        isDone = true;
        isStopped = true;
        await Promise.all(calling);
        expect(late).toEqual([]);
        expect([...causes].sort()).toEqual(["narrowed", LOST]);
        for (const agent of agents) expect(await verdicts(agent)).toEqual(["admitted", LOST]);
        // What is still allowed went on, but on the object that was reset.
        for (const lease of isOrphaned ? reading.slice(1) : reading) {
          expect(await lease.beat()).toBe(true);
          expect(await lease.settle(settlement())).toBe(true);
        }
        for (const agent of agents)
          expect((await recordsOf(agent)).filter(({ type }) => type === "switched")).toHaveLength(1);
      }, 40_000);
});

describe("a narrowing that is asked for again", () => {
  it("with the same key is the same, whatever the time; with other groups it is none; nobody lifts or resumes it", async () => {
    const human = uuid();
    const first = await narrow(human, ["readers"], { idempotencyKey: "k" });
    const again = flipRequest({ act: "narrow", reach: "human", target: { human }, groups: ["readers"] });
    expect(await board().flip({ ...again, idempotencyKey: "k" })).toMatchObject({
      isRepeated: true,
      state: { switch: { id: first.switch.id, eventAtMs: first.switch.eventAtMs } },
    });
    expect(await board().flip({ ...again, idempotencyKey: "k", groups: [] })).toEqual({ flipped: false });
    expect(await board().lift(first.switch.id, operator())).toMatchObject({ kind: "not-lifted" });
    expect(await board().resume({ reach: "human", target: { human } }, operator())).toEqual([]);
    expect((await board().read(first.switch.id))?.opened).toBeNull();
  });
});
