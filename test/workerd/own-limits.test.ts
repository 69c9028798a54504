import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Limits } from "../../src/config/define.ts";
import type { LeaseCalls } from "../../src/instance/contract.ts";
import type { Usage } from "../../src/instance/limits.ts";
import { instanceOf } from "../../src/objects.ts";
import { Random } from "../random.ts";
import { ORIGIN } from "./config.ts";
import { askFor, childOf, enrolmentOf, LEAD, rootOf, said, send } from "./family-kit.ts";
import { type Agent, deployment, enrolAgent, ISSUES, instanceStub, recordsOf, settlement, upstream } from "./kit.ts";
import { abortInstance, ask, count, ofTask, verdict } from "./quota-kit.ts";
import { giveUpOrphans, refuseResumptions } from "./resume-kit.ts";

afterEach(() => vi.restoreAllMocks());

const agentWith = (limits: Partial<Limits>): Promise<Agent> =>
  enrolAgent({ limits: { ...deployment.config.agents["triage-bot"]!.limits, ...limits } });

const admitted = async (agent: Agent) => {
  const admission = await ask(agent);
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
};

/** The bytes that are left, as the next call is told. */
async function bytesLeft(agent: Agent): Promise<number> {
  const admission = await ask(agent);
  if (admission.admitted) await admission.lease.settle(settlement({ outcome: "not-sent", tail: new Uint8Array(0) }));
  return admission.limits!.bytes;
}

/** As on record. */
const usageOf = (agent: Agent): Promise<Usage> =>
  runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
    const newest = "SELECT state FROM log_0 WHERE state IS NOT NULL ORDER BY id DESC LIMIT 1";
    return (JSON.parse(sql.exec<{ state: string }>(newest).one().state) as { usage: Usage }).usage;
  });

/** Reads to the end or the break. */
async function heard(body: ReadableStream<Uint8Array> | null): Promise<{ bytes: number; isWhole: boolean }> {
  let bytes = 0;
  try {
    for await (const run of body ?? []) bytes += run.byteLength;
    return { bytes, isWhole: true };
  } catch {
    return { bytes, isWhole: false };
  }
}

/** Runs of a stream, each as large as the next of `sizes`, again and again. */
const endless = (sizes: readonly number[], type: string): Response => {
  let at = 0;
  const body = new ReadableStream({
    type: "bytes",
    async pull(controller: ReadableByteStreamController) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      controller.enqueue(new Uint8Array(sizes[at++ % sizes.length]!).fill(97));
    },
  } as UnderlyingByteSource);
  return new Response(body, { headers: { "content-type": type } });
};

describe("the budget of bytes", () => {
  it("a whole answer passes to the last byte of it, and one byte more does not", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 1 });
    let size = 600;
    upstream(() => new Response("a".repeat(size), { headers: { "content-length": String(size) } }));
    expect((await (await agent.call(ISSUES)).text()).length).toBe(600);
    size = 401;
    const refused = await agent.call(ISSUES);
    expect([refused.status, await refused.text()]).toEqual([429, expect.not.stringContaining("aaa")]);
    const answer = (await recordsOf(agent)).at(-1);
    expect(answer).toMatchObject({ type: "answer", outcome: "cut", cause: "budget", passedBytes: 0 });
  });

  it("an answer that takes exactly what is left is whole, and then nothing is admitted", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 1 });
    upstream(() => new Response("a".repeat(1_000), { headers: { "content-length": "1000" } }));
    expect((await (await agent.call(ISSUES)).text()).length).toBe(1_000);
    expect(await verdict(ask(agent))).toBe("exhausted");
  });

  it.each([
    ["text/event-stream", [7]],
    ["text/event-stream", [2_000, 1, 13]],
    ["text/plain", [65_536]],
    ["text/plain", [3, 4_096, 17]],
  ])("streams of %s in runs of %j, eight at once, pass no byte more than there is", async (type, sizes) => {
    const bytes = type === "text/plain" ? 200_000 : 20_000;
    const agent = await agentWith({ bytes, concurrency: 8 });
    upstream(() => endless(sizes, type));
    const answers = await Promise.all(Array.from({ length: 8 }, () => agent.call(ISSUES)));
    // Who comes when the others have used it up is refused.
    const bodies = await Promise.all(answers.filter(({ ok }) => ok).map(({ body }) => heard(body)));
    expect(bodies.some(({ isWhole }) => isWhole)).toBe(false);
    const passed = bodies.reduce((sum, body) => sum + body.bytes, 0);
    expect(passed).toBeLessThanOrEqual(bytes);
    expect(passed).toBeGreaterThan(0);
    const recorded = (await recordsOf(agent)).filter((line) => line.type === "answer");
    expect(recorded.map(({ cause }) => cause)).toEqual(Array(bodies.length).fill("budget"));
  });

  it("a stream alone gets all of it", async () => {
    const agent = await agentWith({ bytes: 5_000, concurrency: 1 });
    upstream(() => endless([10], "text/event-stream"));
    expect(await heard((await agent.call(ISSUES)).body)).toEqual({ bytes: 5_000, isWhole: false });
  });

  it("an upload that would exceed it never leaves whole", async () => {
    const agent = await agentWith({ bytes: 1_500_000, concurrency: 2 });
    const { lease } = await (async () => {
      const request = {
        method: "POST",
        target: ISSUES,
        headers: [],
        body: new Uint8Array(1_048_576),
        bodyFollows: true,
      };
      const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
      if (!admission.admitted) throw new Error("refused");
      return admission;
    })();
    // What the answer may need first is not the request's.
    expect(await lease.appendRequest(new Uint8Array(225_000), false)).toBe(true);
    expect(await lease.appendRequest(new Uint8Array(300_000), true)).toBe(false);
    expect(await lease.broken()).toBe("budget");
  });

  it("holds for Workers that pass all they may, over random runs, ends and deaths of the object", async () => {
    const choices = new Random(7);
    const random = (below: number): number => Math.floor(choices.next() * below);
    for (let round = 0; round < 12; round++) {
      const limit = 10 ** (3 + random(3)) + random(1_000);
      const agent = await agentWith({ bytes: limit, concurrency: 1 + random(6) });
      let passed = 0;
      let running: { seq: number; lease: LeaseCalls; ahead: number; uncounted: number }[] = [];
      /** Passes what it may without asking. */
      const pass = (worker: (typeof running)[number], most: number): void => {
        const now = Math.min(most, worker.ahead - worker.uncounted);
        worker.uncounted += now;
        passed += now;
      };
      for (let step = 0; step < 60; step++) {
        const at = random(running.length);
        const worker = running[at];
        const what = random(10);
        if (worker === undefined || what < 3) {
          const admission = await ask(agent);
          if (admission.admitted)
            running.push({ seq: admission.seq, lease: admission.lease, ahead: admission.aheadBytes, uncounted: 0 });
        } else if (what < 7) {
          pass(worker, random(limit));
          const more = random(2) === 0 ? 0 : random(limit / 4);
          const kept = await worker.lease.append(new Uint8Array(worker.uncounted + more));
          if (kept === null) {
            await worker.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
            running.splice(at, 1);
          } else {
            passed += more;
            Object.assign(worker, { ahead: kept, uncounted: 0 });
          }
        } else if (what < 9) {
          pass(worker, random(limit));
          const held = random(200);
          const settled = await worker.lease.settle(settlement({ tail: new Uint8Array(worker.uncounted + held) }));
          if (settled === true) passed += held;
          running.splice(at, 1);
        } else if (random(3) === 0) {
          for (let resets = 1 + random(3); resets > 0; resets--) {
            await abortInstance(agent);
            // Whoever has not noticed yet passes all that it may.
            for (const one of running) pass(one, limit);
            const orphans = running;
            running = [];
            // Some take up their calls again, and say first what they had passed.
            for (const { seq, uncounted } of orphans.filter(() => random(3) > 0)) {
              const { call } = agent.admission();
              const given = await instanceOf(deployment, agent.id).resume({ seq, call: call!, tickets: [] });
              if (given.kind !== "resumed") continue;
              const kept = uncounted === 0 ? given.aheadBytes : await given.lease.append(new Uint8Array(uncounted));
              if (kept !== null) running.push({ seq, lease: given.lease, ahead: kept, uncounted: 0 });
              else await given.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
            }
          }
        }
        expect(passed).toBeLessThanOrEqual(limit);
      }
      // What is said to be left is never more than what is, when what may have passed of lost calls is on record.
      await giveUpOrphans(agent);
      expect(await bytesLeft(agent)).toBeLessThanOrEqual(limit - passed);
    }
  });

  it("of a Worker that fell silent, what it may have passed stays charged; of one that ended, it comes back", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 2 });
    const silent = await admitted(agent);
    expect(silent.aheadBytes).toBe(500);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 20_001);
    const next = await admitted(agent);
    clock.mockRestore();
    expect(next.limits.bytes).toBe(500);
    // Should it be there after all, it hears at once that nothing is to pass any more: no switch would reach it.
    expect(await Promise.race([silent.lease.broken(), new Promise((resolve) => setTimeout(resolve, 1_000))])).toBe(
      "ended",
    );
    expect(await silent.lease.append(new Uint8Array(1))).toBeNull();
    await next.lease.settle(settlement({ tail: new Uint8Array(100) }));
    expect(await bytesLeft(agent)).toBe(400);
  });

  it("leaves to those that run what they may pass: who finds nothing beside it may come again", async () => {
    const agent = await agentWith({ bytes: 3, concurrency: 4 });
    const first = await admitted(agent);
    expect(await first.lease.append(new Uint8Array(2))).toBe(0);
    const second = await admitted(agent);
    expect(second.aheadBytes).toBe(0);
    expect(await second.lease.append(new Uint8Array(2))).toBeNull();
    await second.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
    expect(await first.lease.append(new Uint8Array(1))).toBeNull();
  });
});

describe("when a call is over", () => {
  const declared = (text: string, status = 200): Response =>
    new Response(text, { status, headers: { "content-length": String(text.length) } });
  const breaksOff = (): Response => {
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    void writer.write(new Uint8Array(5)).then(() => writer.abort(new Error("gone")));
    return new Response(readable, { headers: { "content-type": "text/event-stream" } });
  };

  it.each<[string, () => Response, number]>([
    ["whole", () => declared("abcd"), 4],
    ["streamed", () => new Response("abcd"), 4],
    ["empty", () => new Response(null, { status: 204 }), 0],
    // On record, though not the agent's.
    ["refused for the gate's credential", () => declared("sorry", 401), 5],
    ["too large by its own word", () => new Response("a", { headers: { "content-length": "999999999999" } }), 0],
    ["none", () => Promise.reject(new Error("unreachable")) as never, 0],
    ["of a fault of the upstream", () => declared("abcd", 599), 4],
    ["broken off", breaksOff, 5],
  ])("nothing of the budget is held for it, and its bytes are those that came: %s", async (_name, response, bytes) => {
    const agent = await agentWith({ bytes: 100_000, concurrency: 1 });
    upstream(response);
    for (let i = 1; i <= 3; i++) {
      const answer = await agent.call(ISSUES);
      await heard(answer.body);
      await vi.waitFor(async () => expect(await usageOf(agent)).toMatchObject({ bytes: i * bytes, bytesAhead: 0 }));
    }
  });

  it("and it never began, neither: not sent, refused, or waiting for its quota", async () => {
    const agent = await agentWith({ bytes: 100, concurrency: 1 });
    const denial = { kind: "absent", layer: "grant", reason: "no" } as const;
    for (let i = 0; i < 3; i++) {
      const { lease } = await admitted(agent);
      expect(await verdict(ask(agent))).toBe("limited");
      await lease.settle(settlement({ outcome: "not-sent", tail: new Uint8Array(0) }));
      await instanceOf(deployment, agent.id).admit(agent.admission({ denial }));
      expect(await usageOf(agent)).toMatchObject({ bytes: 0, bytesAhead: 0 });
    }
    const limits = { ...deployment.config.agents["ten-bot"]!.limits, bytes: 100 };
    const sharer = await enrolAgent({ agent: "ten-bot", task: ofTask("ten-bot").task!, limits });
    const words = [];
    for (let i = 0; i < 12; i++) {
      const admission = await ask(sharer);
      if (admission.admitted) await admission.lease.settle(settlement({ tail: new Uint8Array(0) }));
      words.push(admission.admitted);
    }
    expect(words.filter((isAdmitted) => isAdmitted)).toHaveLength(10);
    expect(await usageOf(sharer)).toMatchObject({ bytes: 0, bytesAhead: 0 });
  });
});

describe("the bytes of a tree", () => {
  it("carved out while the parent streams, are never more than the parent's, to the last one", async () => {
    const root = await rootOf({ limits: { ...LEAD, bytes: 1_000, concurrency: 3 } });
    const first = await admitted(root.agent);
    expect(first.aheadBytes).toBe(333);
    expect(said(await askFor(root, { form: { task_limits: '{"bytes":668,"concurrency":1}' } }))).toContain("bytes");
    const child = await childOf(root, { task_limits: '{"bytes":667,"concurrency":1}' });
    // What the parent's call held before is its own, and no more.
    expect(await first.lease.append(new Uint8Array(333))).toBe(0);
    expect(await first.lease.append(new Uint8Array(1))).toBeNull();
    await first.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
    expect(await verdict(ask(root.agent))).toBe("exhausted");
    upstream(() => endless([29], "text/event-stream"));
    const headers = await child.held.authorize("GET", ORIGIN + ISSUES);
    const answer = await send(ORIGIN + ISSUES, { headers });
    expect(await heard(answer.body)).toEqual({ bytes: 667, isWhole: false });
  });

  it("of a parent whose object dies are charged within what it had itself: what a child has comes back whole", async () => {
    const root = await rootOf({ limits: { ...LEAD, bytes: 1_000, concurrency: 2 } });
    const child = await childOf(root, { task_limits: '{"bytes":900,"concurrency":1}' });
    const { lease, aheadBytes } = await admitted(root.agent);
    expect(aheadBytes).toBe(100);
    await lease.append(new Uint8Array(100));
    await abortInstance(root.agent);
    expect(await verdict(ask(root.agent))).toBe("exhausted");
    const { grant } = await enrolmentOf(child.id);
    await instanceOf(deployment, root.id).childEnded(child.id, { units: {} }, grant);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 30_001);
    expect(await bytesLeft(root.agent)).toBe(900);
    clock.mockRestore();
  });
});

describe("the places of running calls", () => {
  it("of an earlier life of the object are not free before its Workers have stopped, or must have", async () => {
    const agent = await agentWith({ concurrency: 3 });
    const running = await Promise.all([admitted(agent), admitted(agent)]);
    await abortInstance(agent);
    const words = await Promise.all(Array.from({ length: 5 }, () => verdict(ask(agent))));
    expect(count(words)).toEqual({ admitted: 1, limited: 4 });
    // One says that it has stopped: twice is once, and nobody else's word counts.
    for (const seq of [running[0]!.seq, running[0]!.seq, 0, 999])
      await instanceOf(deployment, agent.id).callStopped(seq);
    const after = await Promise.all(Array.from({ length: 5 }, () => verdict(ask(agent))));
    expect(count(after)).toEqual({ admitted: 1, limited: 4 });
    await abortInstance(agent);
    expect(await verdict(ask(agent))).toBe("limited");
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 30_001);
    expect(await verdict(ask(agent))).toBe("admitted");
    clock.mockRestore();
  });

  it("are free as soon as the Workers of a dead object have closed what they forwarded, and take up no more", async () => {
    refuseResumptions();
    const agent = await agentWith({ concurrency: 2 });
    upstream(() => endless([10], "text/event-stream"));
    const answers = await Promise.all([agent.call(ISSUES), agent.call(ISSUES)]);
    const readers = answers.map(({ body }) => body!.getReader());
    await Promise.all(readers.map((reader) => reader.read()));
    await abortInstance(agent);
    await Promise.all(
      readers.map(async (reader) => {
        await expect(
          (async () => {
            while (!(await reader.read()).done);
          })(),
        ).rejects.toThrow();
      }),
    );
    await vi.waitFor(async () => {
      const [one, two] = await Promise.all([ask(agent), ask(agent)]);
      for (const each of [one!, two!]) if (each.admitted) await each.lease.settle(settlement());
      expect([one!.admitted, two!.admitted]).toEqual([true, true]);
    });
  });
});
