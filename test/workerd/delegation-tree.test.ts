// A tree of instances: it spends no more than its root, and it ends as a whole.

import { runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import type { Reach, Target } from "../../src/control/switch.ts";
import { instanceOf } from "../../src/objects.ts";
import { coveredBy } from "../../src/scope/decide.ts";
import { parseEntries } from "../../src/scope/entry.ts";
import { chosen } from "../chosen.ts";
import { ORIGIN } from "./config.ts";
import {
  alarmAt,
  askFor,
  childOf,
  enrolmentOf,
  isStopped,
  LEAD,
  linesOf,
  type Node,
  READ,
  rootOf,
  said,
  send,
  soon,
  TOKEN_URL,
} from "./family-kit.ts";
import {
  boardStub,
  deployment,
  enrolAgent,
  flip,
  instanceStub,
  type Line,
  SCOPE,
  settlement,
  upstream,
  verdictOf,
} from "./kit.ts";

let passed = 0;
beforeEach(() => {
  passed = 0;
  upstream(() => {
    passed++;
    return Response.json([]);
  });
});
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 30_000 });

const limits = (asked: object) => ({ task_limits: JSON.stringify(asked) });
/** Enough for children of its own. */
const ROOMY = limits({ concurrency: 30, burst: 60, callsPerSecond: 60, calls: 500 });
const returns = async (id: string): Promise<readonly Line[]> =>
  (await linesOf(id)).filter(({ act }) => act === "return");
/** Once its last grant has run out, an instance that was stopped is over. */
const GRANT_MS = 301_000 + 1_000;
const over = (id: string) => alarmAt(id, Date.now() + GRANT_MS);

describe("limits", () => {
  it("of a hundred children that race for what is left, exactly as many as fit", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 35 } });
    const answers = await Promise.all(Array.from({ length: 100 }, () => askFor(root, { form: limits({ calls: 10 }) })));
    const counts: Record<string, number> = {};
    for (const answer of answers) counts[said(answer)] = (counts[said(answer)] ?? 0) + 1;
    expect(counts).toEqual({ granted: 3, "invalid_request: task_limits: calls exceeds what the parent has left": 97 });
    // And five stay with the parent.
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push(await root.call());
    expect(statuses).toEqual([200, 200, 200, 200, 200, 429]);
  });

  it("of how many may live, and of how many there may be, hold in a race too", async () => {
    const root = await rootOf();
    const clerk = await childOf(root, { agent: "clerk", ...limits({ concurrency: 8, burst: 15, callsPerSecond: 5 }) });
    const form = { agent: "clerk" };
    const answers = await Promise.all(Array.from({ length: 10 }, () => askFor(clerk, { form })));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(2);
    const BREADTH = "invalid_request: delegation: the parent has as many living children as it may";
    expect(answers.map(said).filter((text) => text === BREADTH)).toHaveLength(8);
    const [first] = answers.filter(({ status }) => status === 200);
    await instanceOf(deployment, first!.id).revoke("a test", "test");
    // It holds its place until its share is back.
    await soon(async () => expect(await returns(clerk.id)).toHaveLength(1));
    const third = await childOf(clerk, form);
    expect(said(await askFor(clerk, { form }))).toBe(BREADTH);
    await instanceOf(deployment, third.id).revoke("a test", "test");
    await soon(async () => expect(await returns(clerk.id)).toHaveLength(2));
    expect(said(await askFor(clerk, { form }))).toBe(
      "invalid_request: delegation: the parent has had as many children as it may",
    );
  });

  it("come out of the parent's from that moment on: calls, concurrency, bytes", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 10, concurrency: 2 } });
    const child = await childOf(root, limits({ calls: 9, concurrency: 1 }));
    const admit = () => instanceOf(deployment, root.id).admit(root.agent.admission());
    const first = await admit();
    if (!first.admitted) throw new Error("refused");
    expect(await admit()).toMatchObject({ denial: { kind: "exhausted", budget: "calls" } });
    await first.lease.settle(settlement());
    first.lease[Symbol.dispose]?.();
    for (let i = 0; i < 9; i++) expect(await child.call()).toBe(200);
    expect(await child.call()).toBe(429);
    expect(passed).toBe(9);
  });

  it("of rate: what a child may start with comes out of its parent's bucket, as full as that is", async () => {
    // One more in ten seconds.
    const root = await rootOf({ limits: { ...LEAD, callsPerSecond: 0.102, burst: 10 } });
    for (let i = 0; i < 7; i++) expect(await root.call()).toBe(200);
    const child = await childOf(root, limits({ burst: 5, callsPerSecond: 0.001 }));
    const statuses: number[] = [];
    for (let i = 0; i < 6; i++) statuses.push(await child.call());
    expect(statuses).toEqual([200, 200, 200, 429, 429, 429]);
    expect(await root.call()).toBe(429);
    expect(passed).toBe(10);
  });

  it("that a child has not spent come back when it has ended: once, whatever is lost on the way", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 20 } });
    const child = await childOf(root, limits({ calls: 15, units: { usd: 300 } }));
    for (let i = 0; i < 4; i++) await child.call();
    const TOO_MANY = "invalid_request: task_limits: calls exceeds what the parent has left";
    const six = limits({ calls: 6 });
    expect(said(await askFor(root, { form: six }))).toBe(TOO_MANY);
    // The parent can't be reached at first, and then dies with the child's word on its way back.
    const parent = vi.spyOn(AgentInstance.prototype, "childEnded").mockRejectedValueOnce(new Error("unreachable"));
    await child.held.revoke();
    await soon(() => expect(parent).toHaveBeenCalledTimes(1));
    expect(await returns(root.id)).toEqual([]);
    expect(said(await askFor(root, { form: six }))).toBe(TOO_MANY);
    parent.mockRestore();
    await alarmAt(child.id, Date.now() + 6_000);
    await soon(async () => expect(await returns(root.id)).toHaveLength(1));
    await runInDurableObject(instanceStub(root.id), (_o, state) => state.abort("a test")).catch(() => {});
    // Said again, as by a child that was reset before it knew that it was heard.
    await instanceOf(deployment, root.id).childEnded(child.id, { calls: 4, bytes: 0, units: {} }, "its grant");
    const [back] = await returns(root.id);
    expect(back).toMatchObject({ child: child.id, spent: { calls: 4, bytes: expect.any(Number), units: {} } });
    expect(await returns(root.id)).toHaveLength(1);
    // 20 - 4 are left, and not one more.
    expect(said(await askFor(root, { form: limits({ calls: 17 }) }))).toBe(TOO_MANY);
    expect(said(await askFor(root, { form: limits({ calls: 16 }) }))).toBe("granted");
  });

  it("of a child that has children come back with what these have spent", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 100 } });
    const child = await childOf(root, limits({ calls: 50, concurrency: 20, burst: 20, callsPerSecond: 20 }));
    const grandchild = await childOf(child, limits({ calls: 20, concurrency: 2, burst: 2, callsPerSecond: 2 }));
    await grandchild.call();
    await child.call();
    const ending = vi.spyOn(AgentInstance.prototype, "endAsChildOf").mockRejectedValueOnce(new Error("unreachable"));
    await child.held.revoke();
    await soon(() => expect(ending).toHaveBeenCalled());
    // It waits for its own children's word.
    expect(await returns(root.id)).toEqual([]);
    await alarmAt(child.id, Date.now() + 6_000);
    await soon(async () => expect(await returns(root.id)).toHaveLength(1));
    expect((await returns(root.id))[0]).toMatchObject({ child: child.id, spent: { calls: 2 } });
  });

  it("of a child whose own child never speaks: all that this could have spent is spent", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 100 } });
    const child = await childOf(root, limits({ calls: 50, concurrency: 20, burst: 20, callsPerSecond: 20 }));
    const grandchild = await childOf(child, limits({ calls: 20, concurrency: 2, burst: 2, callsPerSecond: 2 }));
    await grandchild.call();
    await alarmAt(child.id, root.agent.enrolment.task.deadlineMs + 61_000);
    const clock = vi.spyOn(Date, "now").mockReturnValue(root.agent.enrolment.task.deadlineMs + 61_000);
    await soon(async () => expect(await returns(root.id)).toHaveLength(1));
    clock.mockRestore();
    expect((await returns(root.id))[0]).toMatchObject({ child: child.id, spent: { calls: 20 } });
  });

  it("over random trees: nobody exceeds its parent in scope or life, and as many calls pass as the root may make", async () => {
    const random = chosen();
    const [everything] = SCOPE;
    const scopes = [
      SCOPE,
      READ,
      [{ ...READ[0]!, where: { owner: ["acme"], repo: ["widgets"] } }],
      [{ ...everything!, where: { owner: ["acme"], repo: ["widgets", "helpdesk"] } }],
      [{ ...everything!, where: { owner: ["acme"], repo: ["widgets"] } }],
    ];
    let refused = 0;
    for (let round = 0; round < 3; round++) {
      passed = 0;
      const calls = 12 + round * 5;
      const root = await rootOf({ limits: { ...LEAD, calls } });
      const last = root.agent.enrolment.task.deadlineMs / 1000;
      const room = { concurrency: 40, burst: 200, callsPerSecond: 200, calls: 7 };
      const one = await childOf(root, limits(room));
      const two = await childOf(one, limits({ concurrency: 9, burst: 60, callsPerSecond: 60, calls: 3 }));
      const nodes: Node[] = [root, one, two];
      for (let step = 0; step < 12; step++) {
        const parent = random.one(nodes);
        const asked = random.one([{}, { calls: random.one([1, 2, 5, 8]) }]);
        const rate = random.one([300, 100, 30]);
        const answer = await childOf(parent, {
          ...limits({ ...asked, concurrency: random.one([2, 5, 20]), burst: rate, callsPerSecond: rate }),
          authorization_details: JSON.stringify(random.one(scopes)),
          deadline: String(last - random.one([0, 10, 20, 30, 60])),
        }).catch(() => undefined);
        await random.one(nodes).call();
        if (answer === undefined) refused++;
        else {
          nodes.push(answer);
          const [above, below] = [await enrolmentOf(parent.id), await enrolmentOf(answer.id)];
          const [wider, narrower] = [parseEntries(above.scope, ""), parseEntries(below.scope, "")];
          if (!wider.ok || !narrower.ok) throw new Error("a scope can't be read");
          for (const entry of narrower.value) expect(coveredBy(wider.value, entry)).toBe(true);
          expect(below.task.deadlineMs).toBeLessThanOrEqual(above.task.deadlineMs);
          for (const name of ["calls", "bytes", "concurrency", "burst", "callsPerSecond"] as const)
            expect([name, below.limits[name] <= above.limits[name]]).toEqual([name, true]);
          expect(below.limits.units["usd"]!).toBeLessThanOrEqual(above.limits.units["usd"]!);
        }
      }
      // Until each has spent all; the bucket is never the bound here.
      for (const node of nodes) for (let i = 0; i < 60 && (await node.call()) === 200; i++);
      expect([round, passed]).toEqual([round, calls]);
    }
    expect(refused).toBeGreaterThan(0);
  });
});

describe("a kill", () => {
  it("of one of 100 siblings takes all below it, three levels down, and leaves the other trees alone", async () => {
    const root = await rootOf();
    const [killed, other] = [await childOf(root, ROOMY), await childOf(root, ROOMY)];
    const below = limits({ concurrency: 5, burst: 5, callsPerSecond: 5, calls: 50 });
    const [killed2, other2] = [await childOf(killed, below), await childOf(other, below)];
    const small = limits({ concurrency: 1, burst: 1, callsPerSecond: 1 });
    const [killed3, other3] = [await childOf(killed2, small), await childOf(other2, small)];
    // As the token endpoint would enrol them, which is slow for so many.
    const siblings = await Promise.all(
      Array.from({ length: 98 }, () => enrolAgent({ ancestors: [root.id], parentScope: SCOPE })),
    );
    const state = await flip({ reach: "instance", target: { instance: killed.id }, reason: "it reads the payroll" });
    expect(state.status).toBe("done");
    expect(state.reached.map(({ instance }) => instance).sort()).toEqual([killed.id, killed2.id, killed3.id].sort());
    expect(await Promise.all([killed, killed2, killed3].map((node) => node.call()))).toEqual([401, 401, 401]);
    expect(await Promise.all([root, other, other2, other3].map((node) => node.call()))).toEqual([200, 200, 200, 200]);
    expect(new Set(await Promise.all(siblings.map(verdictOf)))).toEqual(new Set(["admitted"]));
    expect(said(await askFor(killed3))).toBe("invalid_request: subject_token: no longer valid");
  });

  it("and a pause, of the root, its task and its human reach the leaves; and a pause passes", async () => {
    for (const target of ["instance", "task", "human"] as const) {
      const human = `human-${crypto.randomUUID()}`;
      const task = { id: `build-platform_${crypto.randomUUID()}`, purpose: "p", deadlineMs: Date.now() + 600_000 };
      const root = await rootOf({ human, task });
      const child = await childOf(root, ROOMY);
      const leaf = await childOf(child, limits({ concurrency: 1, burst: 3 }));
      const value = { instance: root.id, task: task.id, human }[target];
      const paused = await flip({ reach: target, target: { [target]: value }, act: "pause" });
      expect([target, await leaf.call()]).toEqual([target, 401]);
      await boardStub().lift(paused.switch.id, { by: "admin", email: null, reason: "over" });
      await soon(async () => expect(await leaf.call()).toBe(200));
      await flip({ reach: target, target: { [target]: value } });
      expect([target, await leaf.call(), await isStopped(child.id)]).toEqual([target, 401, true]);
    }
  });

  it("of the root's agent, or of its version, reaches what works below it; of another version it does not", async () => {
    const root = await rootOf({ agent: "chief" });
    const form = { agent: "summariser", agent_version: "2.0.0", authorization_details: JSON.stringify(READ) };
    const child = await childOf(root, { ...form, ...limits({ calls: 9 }) });
    const pauseOf = (reach: Reach, target: Target) => flip({ reach, target, act: "pause" });
    const lift = (id: string) => boardStub().lift(id, { by: "admin", email: null, reason: "over" });
    // Its own version with the agent above it is nobody's.
    const others = [
      await pauseOf("agent-version", { agent: "chief", agentVersion: "2.0.0" }),
      await pauseOf("agent-version", { agent: "summariser", agentVersion: "1.0.0" }),
      await pauseOf("agent-upstream", { agent: "clerk", upstream: "github" }),
    ];
    expect(await child.call()).toBe(200);
    for (const { switch: sw } of others) await lift(sw.id);
    for (const [reach, target, status] of [
      ["agent", { agent: "chief" }, 401],
      ["agent-version", { agent: "chief", agentVersion: "1.0.0" }, 401],
      ["agent-upstream", { agent: "chief", upstream: "github" }, 404],
    ] as const) {
      const { switch: sw } = await pauseOf(reach, target);
      expect([reach, await child.call()]).toEqual([reach, status]);
      await lift(sw.id);
      await soon(async () => expect([reach, await child.call()]).toEqual([reach, 200]));
    }
  });

  it("of the parent keeps out a child that it has just named", async () => {
    const root = await rootOf();
    const delegating = askFor(root);
    const [answer] = await Promise.all([delegating, flip({ reach: "instance", target: { instance: root.id } })]);
    if (answer.status === 200) expect(await isStopped(answer.id)).toBe(true);
    else expect(said(answer)).toBe("invalid_request: subject_token: no longer valid");
  });
});

describe("a parent that is revoked", () => {
  it("by itself ends all below it, with who did it on their records, though all objects die in between", async () => {
    const root = await rootOf();
    const child = await childOf(root, ROOMY);
    const leaf = await childOf(child, limits({ concurrency: 1, burst: 3 }));
    const sibling = await rootOf();
    expect(await root.held.revoke()).toBe(true);
    for (const { id } of [root, child, leaf])
      await runInDurableObject(instanceStub(id), (_o, state) => state.abort("a test")).catch(() => {});
    await soon(async () => expect([await isStopped(child.id), await isStopped(leaf.id)]).toEqual([true, true]));
    expect([await child.call(), await leaf.call(), await sibling.call()]).toEqual([401, 401, 200]);
    expect(await leaf.held.renew()).toBe("refused");
    expect((await linesOf(leaf.id)).find(({ type }) => type === "switched")).toMatchObject({
      act: "revoke",
      by: "parent",
    });
  });

  it("by its platform ends them too, and is told as revoked though a child can't be reached; which ends when it can", async () => {
    const root = await rootOf();
    const child = await childOf(root, ROOMY);
    const ending = vi.spyOn(AgentInstance.prototype, "endAsChildOf").mockRejectedValue(new Error("unreachable"));
    expect(await instanceOf(deployment, root.id).revoke("build-platform", "test")).not.toBeNull();
    await soon(() => expect(ending).toHaveBeenCalled());
    expect(await isStopped(child.id)).toBe(false);
    ending.mockRestore();
    await alarmAt(root.id, Date.now() + 6_000);
    await soon(async () => expect(await isStopped(child.id)).toBe(true));
  });

  it("ends no child of another, nor one that only another names", async () => {
    const [root, other] = [await rootOf(), await rootOf()];
    const child = await childOf(root);
    expect(await instanceOf(deployment, child.id).endAsChildOf(other.id, "test", "its grant")).toBe("absent");
    expect(await instanceOf(deployment, other.id).endAsChildOf(root.id, "test", "grant-1")).toBe("absent");
    // Nor by another delegation of the same key.
    expect(await instanceOf(deployment, child.id).endAsChildOf(root.id, "test", "another")).toBe("absent");
    expect([await child.call(), await other.call()]).toEqual([200, 200]);
  });
});

describe("time", () => {
  it("ends a tree: a leaf's grant and task are over with its root's, without a word from above", async () => {
    const deadlineMs = Math.ceil(Date.now() / 1000) * 1000 + 200_000;
    const root = await rootOf({ task: { id: "build-platform_t1", purpose: "p", deadlineMs } });
    const child = await childOf(root, ROOMY);
    const leaf = await childOf(child, limits({ concurrency: 1, burst: 3 }));
    const clock = vi.spyOn(Date, "now").mockReturnValue(deadlineMs);
    expect(await leaf.call()).toBe(401);
    expect(await isStopped(leaf.id)).toBe(true);
    clock.mockRestore();
  });
});

describe("a root", () => {
  it("costs its calls what they cost before, and one that ends without children says nothing to anybody", async () => {
    const agent = await enrolAgent();
    const spy = vi.spyOn(AgentInstance.prototype, "childEnded");
    await instanceOf(deployment, agent.id).revoke("a test", "test");
    await over(agent.id);
    expect(spy).not.toHaveBeenCalled();
    expect(await send(TOKEN_URL, { method: "POST" }).then(({ status }) => status)).toBe(400);
    expect(ORIGIN).toBe(deployment.config.origin);
  });
});
