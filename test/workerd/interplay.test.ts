// Parts that meet in one call: shared limits, sub-agents, approvals, and the watch for second copies.

import { afterEach, describe, expect, it, vi } from "vitest";
import { Quota } from "../../durable-objects/quota.ts";
import type { Place } from "../../src/control/second-copy.ts";
import { PROOF_MAX_AGE_MS } from "../../src/grant/proof.ts";
import type { Admission } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { decide, fileIn, put, storyOf } from "./approval-kit.ts";
import { childOf, LEAD, rootOf } from "./family-kit.ts";
import { type Agent, deployment, enrolAgent, recordsOf, settlement, upstream } from "./kit.ts";
import { abortInstance, ask, count, decided, ofTask, readQuota, team, verdict } from "./quota-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

/** Answers of quotas wait until it is called. `asked`: how many have been. */
function heldQuotas() {
  const open = Promise.withResolvers<void>();
  const lease = Quota.prototype.lease;
  const held = { asked: 0, release: open.resolve };
  vi.spyOn(Quota.prototype, "lease").mockImplementation(async function (this: Quota, request) {
    held.asked++;
    await open.promise;
    return lease.call(this, request);
  });
  return held;
}

describe("a tree", () => {
  it("shares its task's quota as one: of a thousand calls of all of it for the last ten, ten", async () => {
    const root = await rootOf(ofTask("ten-bot"));
    // Places for all of them: calls that wait for the quota hold some.
    const child = await childOf(root, { agent: "ten-bot", task_limits: '{"concurrency":4000}' });
    const grandchild = await childOf(child, { agent: "ten-bot", task_limits: '{"concurrency":1000}' });
    const ids = [root.id, child.id, grandchild.id];
    const words = await Promise.all(
      Array.from({ length: 1_000 }, (_, i) =>
        decided(() => instanceOf(deployment, ids[i % 3]!).admit(root.agent.admission())),
      ),
    );
    expect(count(words)).toEqual({ admitted: 10, "exhausted by ten": 990 });
    expect(await readQuota(`ten.${root.agent.enrolment.task.id}`)).toMatchObject({ instances: 3 });
  });

  it("has units that running calls have reserved in nobody else's hands, and the last millionth of the rest in a child's", async () => {
    const change = ofTask("paying-bot");
    const root = await rootOf({ ...change, limits: { ...change.limits!, units: { usd: 0.15 } } });
    const segments = ["v1", "chat"];
    const call = { upstream: "model", method: "POST", segments, query: [], body: { kind: "none" as const } };
    const admit = (id: string) => instanceOf(deployment, id).admit(root.agent.admission({ call }));
    const first = await admit(root.id);
    if (!first.admitted) throw new Error(JSON.stringify(first.denial));
    const child = (usd: number) =>
      childOf(root, { agent: "paying-bot", task_limits: JSON.stringify({ units: { usd } }) });
    await expect(child(0.087001)).rejects.toThrow("units.usd exceeds what the parent has left");
    const { id } = await child(0.087);
    expect(await admit(root.id)).toMatchObject({ denial: { budget: "units.usd" }, limits: { units: { usd: 0 } } });
    // It says that it cost more than was reserved: nothing below nothing is left, and the child keeps what it has.
    await first.lease.settle(settlement({ units: { usd: 0.07 } }));
    expect(await admit(root.id)).toMatchObject({ denial: { budget: "units.usd" }, limits: { units: { usd: 0 } } });
    const inTree = await instanceOf(deployment, id).introspect();
    expect(inTree.enrolment?.limits.units).toEqual({ usd: 0.087 });
  });

  it("cuts a stream that runs where what its children were given begins", async () => {
    const root = await rootOf({ limits: { ...LEAD, bytes: 1_000_000 } });
    const running = await instanceOf(deployment, root.id).admit(root.agent.admission());
    if (!running.admitted) throw new Error(JSON.stringify(running.denial));
    await childOf(root, { task_limits: JSON.stringify({ bytes: 600_000 }) });
    let passed = 0;
    while ((await running.lease.append(new Uint8Array(100_000))) !== null) passed += 100_000;
    expect([await running.lease.broken(), passed]).toEqual(["budget", 400_000]);
  });

  it("has places of running calls in nobody else's hands", async () => {
    const root = await rootOf({ limits: { ...LEAD, concurrency: 4 } });
    const admit = () => verdict(instanceOf(deployment, root.id).admit(root.agent.admission()));
    expect([await admit(), await admit()]).toEqual(["admitted", "admitted"]);
    const child = (concurrency: number) => childOf(root, { task_limits: JSON.stringify({ concurrency }) });
    await expect(child(2)).rejects.toThrow("concurrency exceeds what the parent has left");
    await child(1);
    expect([await admit(), await admit()]).toEqual(["admitted", "limited"]);
  });
});

describe("an approved call that shared limits concern", () => {
  const watched = (): string[] => {
    const calls: string[] = [];
    upstream((request) => {
      if (request.url.startsWith("https://hooks.test")) return new Response(null, { status: 503 });
      calls.push(request.method);
      return Response.json({});
    });
    return calls;
  };
  async function approved(): Promise<{ agent: Agent; other: Agent; calls: string[] }> {
    const { members } = await team("ten-bot", 2);
    const [agent, other] = members as [Agent, Agent];
    const calls = watched();
    expect((await put(agent)).status).toBe(503);
    await decide(agent);
    return { agent, other, calls };
  }

  it("spends nothing of its approval where they refuse it, and passes once where they let it", async () => {
    const { agent, other, calls } = await approved();
    const words = await Promise.all(Array.from({ length: 20 }, () => verdict(ask(other))));
    expect(count(words)["admitted"]).toBe(10);
    expect((await put(agent)).status).toBe(429);
    expect((await recordsOf(agent)).at(-1)).toMatchObject({ type: "refused", decision: { kind: "exhausted" } });
    const { ten } = deployment.config.quotas as unknown as { ten: { calls: number } };
    try {
      ten.calls = 30;
      await vi.waitFor(async () => expect((await put(agent)).status).toBe(200), { interval: 600 });
    } finally {
      ten.calls = 10;
    }
    expect((await put(agent)).status).toBe(503);
    expect(calls).toEqual(["PUT"]);
  });

  it("passes once of many that wait for a lease, and is not spent by an object that dies while they wait", async () => {
    const { agent, calls } = await approved();
    const held = heldQuotas();
    const lost = put(agent);
    await vi.waitFor(() => expect(held.asked).toBe(1));
    await abortInstance(agent);
    expect((await lost).status).toBe(503);
    const many = Array.from({ length: 5 }, () => put(agent));
    await vi.waitFor(() => expect(held.asked).toBe(2));
    held.release();
    const statuses = (await Promise.all(many)).map(({ status }) => status);
    expect(statuses.toSorted()).toEqual([200, 503, 503, 503, 503]);
    expect(calls).toEqual(["PUT"]);
    const used = (await recordsOf(agent)).filter(({ type, approval }) => type === "call" && approval !== undefined);
    expect(used).toHaveLength(1);
  });

  it("keeps its approval, and all that it took, where its object dies while it runs", async () => {
    const { agent } = await approved();
    const calls: string[] = [];
    let isLetGo = false;
    upstream(async (request) => {
      calls.push(request.url);
      // The test and the gate run in contexts of their own: it looks in turns whether it may.
      while (!isLetGo) await new Promise((resolve) => setTimeout(resolve, 5));
      return Response.json({});
    });
    const running = put(agent);
    await vi.waitFor(() => expect(calls.some((url) => url.startsWith("https://github.test"))).toBe(true));
    await abortInstance(agent);
    expect((await put(agent)).status).toBe(503);
    expect((await recordsOf(agent)).filter(({ type }) => type === "answer")).toEqual([]);
    const words = await Promise.all(Array.from({ length: 12 }, () => verdict(ask(agent))));
    expect(count(words)).toEqual({ admitted: 9, "exhausted by ten": 3 });
    isLetGo = true;
    // Its Worker takes it up again.
    const response = await running;
    expect([response.status, await response.text()]).toEqual([200, "{}"]);
    expect((await recordsOf(agent)).filter(({ type }) => type === "answer")).toMatchObject([{ outcome: "complete" }]);
    expect(calls.filter((url) => url.startsWith("https://github.test"))).toHaveLength(1);
  });

  it("that a person let go, and that waits for a lease, is stopped by its end, and its approval is cancelled", async () => {
    const { members } = await team("ten-bot", 1);
    const [agent] = members as [Agent];
    const calls = watched();
    const waiting = put(agent, "one", fileIn("vault-waits"));
    const held = heldQuotas();
    await decide(agent);
    await vi.waitFor(() => expect(held.asked).toBe(1));
    await instanceOf(deployment, agent.id).revoke("platform", "test");
    held.release();
    expect((await waiting).status).toBe(401);
    expect(calls).toEqual([]);
    const story = await storyOf(agent);
    expect(story).toEqual(["approval asked", "approval approved", "switched", "approval cancelled", "refused"]);
  });

  it("whose time runs out while it waits for a lease does not pass", async () => {
    const { members } = await team("ten-bot", 1);
    const [agent] = members as [Agent];
    const calls = watched();
    const short = fileIn("vault-short");
    expect((await put(agent, "one", short)).status).toBe(503);
    await decide(agent);
    const held = heldQuotas();
    const waiting = put(agent, "one", short);
    await vi.waitFor(() => expect(held.asked).toBe(1));
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 31_000);
    held.release();
    expect((await waiting).status).toBe(404);
    clock.mockRestore();
    expect(calls).toEqual([]);
  });
});

describe("a call that waits for a lease", () => {
  it("and comes again with its proof meanwhile passes once; the other is a replay", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    const held = heldQuotas();
    const admission = agent.admission();
    const asked = Array.from({ length: 3 }, () => instanceOf(deployment, agent.id).admit(admission));
    await vi.waitFor(() => expect(held.asked).toBe(1));
    held.release();
    const answers: readonly Admission[] = await Promise.all(asked);
    expect(answers.filter(({ admitted }) => admitted)).toHaveLength(1);
    for (const answer of answers)
      if (!answer.admitted) expect(answer.denial).toMatchObject({ kind: "unauthenticated", reason: "replay" });
  });

  it("is no replay because its proof was older by then, and is one when it comes again", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    const held = heldQuotas();
    const beforeMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(beforeMs);
    const proof = { jti: crypto.randomUUID(), issuedAtMs: beforeMs - PROOF_MAX_AGE_MS + 4_000 };
    const admit = () => instanceOf(deployment, agent.id).admit(agent.admission({ proof }));
    const asked = admit();
    await vi.waitFor(() => expect(held.asked).toBe(1));
    const nowMs = beforeMs + 5_000;
    clock.mockReturnValue(nowMs);
    held.release();
    expect(await asked).toMatchObject({ admitted: true });
    for (const atMs of [nowMs, nowMs - 5_000]) {
      clock.mockReturnValue(atMs);
      expect(await admit()).toMatchObject({ denial: { kind: "unauthenticated", reason: "replay" } });
    }
  });

  it("is seen once where it comes from: it is no second call of a second copy", async () => {
    const agent = await enrolAgent(ofTask("ten-bot"));
    const nowhere = { address: null, family: 4 as const, tls: null, protocol: null, agent: null };
    const place = (network: number, country: string): Place => ({ ...nowhere, network, country });
    const [home, away] = [place(64_500, "FR"), place(64_501, "DE")];
    const object = instanceOf(deployment, agent.id);
    const at = (where: Place, issuedAtMs: number) => ({
      proof: { jti: crypto.randomUUID(), issuedAtMs },
      sighting: { place: where, arrivedAtMs: issuedAtMs },
    });
    const nowMs = Date.now();
    expect(await object.admit(agent.admission(at(home, nowMs - 3_000)))).toMatchObject({ admitted: true });
    const renewal = { refreshDigest: "digest-1", grant: "g2", expiresAtMs: nowMs + 300_000, deployment: "test" };
    expect(await object.renew({ ...renewal, ...at(away, nowMs - 2_000) })).toMatchObject({ renewed: true });
    await object.recall(`ten.${agent.enrolment.task.id}`);
    expect(await object.admit(agent.admission(at(home, nowMs - 1_000)))).toMatchObject({ admitted: true });
    expect((await recordsOf(agent)).filter(({ type }) => type === "signal")).toEqual([]);
    expect(await object.admit(agent.admission(at(home, nowMs)))).toMatchObject({ admitted: true });
    expect((await recordsOf(agent)).filter(({ type }) => type === "signal")).toMatchObject([
      { seen: "renewal", value: 2 },
    ]);
  });
});
