// What a stopped child has not spent is its parent's again as soon as nothing can be charged to it any more: no sooner, and once.

import { runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { endChild } from "../../src/agent/agent-fetch.ts";
import { instanceOf } from "../../src/objects.ts";
import { chosen } from "../chosen.ts";
import { alarmAt, askFor, childOf, enrolmentOf, LEAD, linesOf, type Node, rootOf, said, soon } from "./family-kit.ts";
import { type Agent, deployment, flip, instanceStub, type Line, settlement, upstream } from "./kit.ts";

beforeEach(() => void upstream(() => Response.json([])));
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 60_000 });

const limits = (asked: object) => ({ task_limits: JSON.stringify(asked) });
const ROOMY = { concurrency: 30, burst: 200, callsPerSecond: 200 };
const object = (id: string) => instanceOf(deployment, id);
const abort = (id: string) =>
  runInDurableObject(instanceStub(id), (_o, state) => state.abort("a test")).catch(() => {});
const returns = async (id: string): Promise<readonly Line[]> =>
  (await linesOf(id)).filter(({ act }) => act === "return");
const returned = (id: string, times = 1) => soon(async () => expect(await returns(id)).toHaveLength(times));

/** A call whose Worker is this test. */
async function admit(agent: Agent, id: string) {
  const admission = await object(id).admit(agent.admission());
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}

/** All rows, as they are: to read by the object's own method puts on record what is not. */
const storedOf = (id: string): Promise<string> =>
  runInDurableObject(instanceStub(id), (_o, { storage: { sql } }) => {
    const tables = sql.exec<{ name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'",
    );
    return tables
      .toArray()
      .flatMap(({ name }) => sql.exec(`SELECT * FROM "${name}"`).toArray().flatMap(Object.values))
      .join("\n");
  });

/** What its next call is told, and that call is one of them. */
async function leftOf(root: Node & { readonly agent: Agent }) {
  const admission = await object(root.id).admit(root.agent.admission());
  if (admission.admitted) await admission.lease.settle(settlement({ outcome: "not-sent", tail: new Uint8Array(0) }));
  return admission.limits!;
}

describe("the share of a child that is stopped comes back", () => {
  it.each([
    ["by itself", (_root: Node, child: Node) => child.held.revoke()],
    ["by its parent", (root: Node, child: Node) => endChild(root.held, child.id)],
    ["by its platform", (_root: Node, child: Node) => object(child.id).revoke("build-platform", "test")],
    ["by a kill", (_root: Node, child: Node) => flip({ reach: "instance", target: { instance: child.id } })],
  ])("%s: at once, and though its transcript stays open for attempts that are refused", async (_name, stop) => {
    const root = await rootOf({ limits: { ...LEAD, calls: 20 } });
    const child = await childOf(root, limits({ calls: 15, ...ROOMY }));
    for (let i = 0; i < 4; i++) await child.call();
    const { childEnded } = AgentInstance.prototype;
    let before = "";
    vi.spyOn(AgentInstance.prototype, "childEnded").mockImplementation(async function (this: AgentInstance, ...word) {
      before = await storedOf(child.id);
      return childEnded.apply(this, word);
    });
    await stop(root, child);
    await returned(root.id);
    // What stopped it is durable by then: an object that came up again after its word would spend nothing.
    expect(before).toContain('"type":"switched"');
    expect(await child.call()).toBe(401);
    expect((await linesOf(child.id)).map(({ type }) => type)).not.toContain("ended");
    expect((await returns(root.id))[0]).toMatchObject({ child: child.id, spent: { calls: 4 } });
    expect(await leftOf(root)).toMatchObject({ calls: 15, limits: { concurrency: LEAD.concurrency } });
    // Its own end, later, says nothing more.
    await alarmAt(child.id, Date.now() + 400_000);
    expect(await returns(root.id)).toHaveLength(1);
  });

  it("not while a call of it runs: that one settles late and is counted, or is given up with all that it may have passed", async () => {
    const [settled, silent] = await Promise.all(
      [true, false].map(async (isSettled) => {
        const root = await rootOf({ limits: { ...LEAD, calls: 20, bytes: 1_000_000 } });
        const child = await childOf(root, limits({ calls: 15, bytes: 500_000, ...ROOMY }));
        const { lease, aheadBytes } = await admit(root.agent, child.id);
        expect(await endChild(root.held, child.id)).toBe(true);
        expect(await returns(root.id)).toEqual([]);
        if (isSettled) await lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(321) }));
        return { root, child, lease, aheadBytes };
      }),
    );
    await alarmAt(settled!.child.id, Date.now() + 6_000);
    await returned(settled!.root.id);
    expect((await returns(settled!.root.id))[0]).toMatchObject({ spent: { calls: 1, bytes: 321 } });
    await alarmAt(silent!.child.id, Date.now() + 6_000);
    expect(await returns(silent!.root.id)).toEqual([]);
    await alarmAt(silent!.child.id, Date.now() + 30_000);
    await returned(silent!.root.id);
    expect(silent!.aheadBytes).toBeGreaterThan(0);
    expect((await returns(silent!.root.id))[0]).toMatchObject({ spent: { calls: 1, bytes: silent!.aheadBytes } });
    // What its Worker says after that is refused, and charged to nobody.
    for (const { root, lease } of [settled!, silent!]) {
      expect(await lease.settle(settlement({ tail: new Uint8Array(99) }))).toBe(false);
      expect(await returns(root.id)).toHaveLength(1);
    }
    expect(await leftOf(settled!.root)).toMatchObject({ calls: 18, bytes: 1_000_000 - 321 });
    expect(await leftOf(silent!.root)).toMatchObject({ calls: 18, bytes: 1_000_000 - silent!.aheadBytes });
  });

  it("not while a Worker may run that lost its lease with the child's object: until that says so, or must have stopped", async () => {
    for (const isHeard of [true, false]) {
      const root = await rootOf({ limits: { ...LEAD, calls: 20 } });
      const child = await childOf(root, limits({ calls: 15, concurrency: 5, burst: 5 }));
      const { seq } = await admit(root.agent, child.id);
      await abort(child.id);
      expect(await child.held.revoke()).toBe(true);
      await alarmAt(child.id, Date.now() + 6_000);
      expect([isHeard, await returns(root.id)]).toEqual([isHeard, []]);
      if (isHeard) await object(child.id).callStopped(seq);
      await alarmAt(child.id, Date.now() + (isHeard ? 6_000 : 40_000));
      await returned(root.id);
      expect(await leftOf(root)).toMatchObject({ calls: 18 });
    }
  });

  it("once, though the child dies with its word, or the parent with having heard it", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 20 } });
    const child = await childOf(root, limits({ calls: 15 }));
    await child.call();
    const { childEnded } = AgentInstance.prototype;
    let times = 0;
    let isDead = false;
    vi.spyOn(AgentInstance.prototype, "childEnded").mockImplementation(async function (this: AgentInstance, ...word) {
      times++;
      if (times === 1) {
        await abort(child.id);
        isDead = true;
        throw new Error("the child is gone");
      }
      await childEnded.apply(this, word);
      if (times === 2) throw new Error("nobody hears that it was heard");
      return true;
    });
    await child.held.revoke().catch(() => false);
    await soon(() => expect(isDead).toBe(true));
    await alarmAt(child.id, Date.now() + 6_000);
    await returned(root.id);
    await abort(root.id);
    await alarmAt(child.id, Date.now() + 12_000);
    await soon(() => expect(times).toBe(3));
    await alarmAt(child.id, Date.now() + 18_000);
    // By now it knows that it was heard, and knows it still as another object.
    await abort(child.id);
    await alarmAt(child.id, Date.now() + 24_000);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([times, (await returns(root.id)).length]).toEqual([3, 1]);
    expect(await leftOf(root)).toMatchObject({ calls: 18 });
  });

  it("of one delegation: what an earlier one of the same key has said gives nothing back of this one", async () => {
    const root = await rootOf({ limits: { ...LEAD, calls: 20 } });
    const child = await childOf(root, limits({ calls: 15 }));
    await child.call();
    const { grant } = await enrolmentOf(child.id);
    await endChild(root.held, child.id);
    await returned(root.id);
    const { enrol } = AgentInstance.prototype;
    let left = {};
    vi.spyOn(AgentInstance.prototype, "enrol").mockImplementationOnce(async function (this: AgentInstance, request) {
      await object(root.id).childEnded(child.id, { calls: 1, units: {} }, grant);
      left = await leftOf(root);
      return enrol.call(this, request);
    });
    const again = await askFor(root, { key: child.key, form: limits({ calls: 15 }) });
    expect(said(again)).toContain("invalid_request: this key is enrolled already");
    expect(left).toMatchObject({ calls: 20 - 1 - 15 - 1 });
    // And of this one, which came to nothing, all of it comes back.
    await returned(root.id, 2);
    expect((await returns(root.id))[1]).toMatchObject({ child: child.id, spent: { units: {} } });
    expect(await leftOf(root)).toMatchObject({ calls: 20 - 1 - 1 - 1 });
  });
});

describe("over random trees", () => {
  const ignore = () => {};
  interface Placed {
    readonly node: Node;
    readonly parent: Node | null;
    readonly level: number;
  }
  const bytesOf = (body: unknown): number => (body as { readonly bytes?: number } | null)?.bytes ?? 0;
  /** For whom something is reserved. */
  const childrenOf = (id: string): Promise<number> =>
    runInDurableObject(
      instanceStub(id),
      (_o, { storage }) => storage.sql.exec("SELECT 1 FROM kept WHERE kind = 'child'").toArray().length,
    );

  it("that are ended here and there, whose objects die and whose words are lost: at the end the root has its limit less what was spent", async () => {
    const random = chosen();
    const real = Date.now.bind(Date);
    for (let round = 0; round < 3; round++) {
      const [CALLS, BYTES] = [100, 10_000_000];
      const root = await rootOf({ limits: { ...LEAD, calls: CALLS, bytes: BYTES } });
      const nodes: Placed[] = [{ node: root, parent: null, level: 0 }];
      const grow = async ({ node, level }: Placed): Promise<void> => {
        const [calls, most] = [random.one([[24, 12, 5][level] ?? 1, 3]), [40, 12, 3][level] ?? 1];
        const child = await childOf(node, limits({ calls, concurrency: most, burst: most, callsPerSecond: most }));
        nodes.push({ node: child, parent: node, level: level + 1 });
      };
      for (let i = 0; i < 3; i++) await grow(nodes[0]!);
      for (let i = 0; i < 9; i++) await grow(random.one(nodes)).catch(ignore);
      for (const method of ["childEnded", "endAsChildOf", "confirmChild"] as const) {
        const methods = AgentInstance.prototype as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
        const original = methods[method]!;
        const losses = random.fork();
        vi.spyOn(methods, method).mockImplementation(async function (this: AgentInstance, ...args) {
          const luck = losses.next();
          if (luck < 0.15) throw new Error("lost on the way there");
          const answer = await original.apply(this, args);
          if (luck < 0.3) throw new Error("lost on the way back");
          return answer;
        });
      }
      const steps = Array.from({ length: 40 }, async () => {
        const own = random.fork();
        // Beside each other, in whatever order the machine has them.
        await new Promise((resolve) => setTimeout(resolve, own.next() * 1_500));
        const placed = own.one(nodes);
        const { node, parent } = placed;
        const luck = own.next();
        if (luck < 0.15) await grow(placed);
        else if (luck < 0.75) await Promise.all([node.call(), node.call()]);
        else if (luck < 0.82 && parent !== null) await endChild(parent.held, node.id);
        else if (luck < 0.87 && parent !== null) await node.held.revoke();
        else if (luck < 0.9 && parent !== null) await flip({ reach: "instance", target: { instance: node.id } });
        else await abort(node.id);
      });
      await Promise.all(steps.map((step) => step.catch(ignore)));
      vi.restoreAllMocks();
      // Those among them whose grants nobody got to see: they have spent nothing.
      const lines = (await Promise.all(nodes.map(({ node }) => linesOf(node.id)))).flat();
      const named = new Set(lines.filter(({ act }) => act === "delegate").map(({ child }) => String(child)));
      const ids = [...new Set([...nodes.map(({ node }) => node.id), ...named])].reverse();
      const spent = lines.filter(({ type }) => type === "call").length;
      expect([round, nodes.length > 5, spent > 3, spent <= CALLS]).toEqual([round, true, true, true]);
      // Far down in a tree some have a few bytes alone: an answer that these don't cover is withheld, and is on record whole.
      const passed = lines.filter(({ type, outcome }) => type === "answer" && outcome === "complete");
      const answered = passed.reduce((sum, { body }) => sum + bytesOf(body), 0);
      for (const id of named) expect(await endChild(root.held, id)).toBe(true);
      for (let later = 1; (await childrenOf(root.id)) > 0; later++) {
        expect([round, later < 10]).toEqual([round, true]);
        vi.spyOn(Date, "now").mockImplementation(() => real() + later * 15_000);
        for (const id of ids) await runInDurableObject(instanceStub(id), (o: AgentInstance) => o.alarm());
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      const left = await leftOf(root);
      expect([round, left.calls]).toEqual([round, CALLS - spent - 1]);
      // Calls that were lost are charged with what they may have passed.
      expect(left.bytes).toBeLessThanOrEqual(BYTES - answered);
      expect(left.limits).toMatchObject({ concurrency: LEAD.concurrency, burst: LEAD.burst });
      vi.restoreAllMocks();
      upstream(() => Response.json([]));
    }
  });
});
