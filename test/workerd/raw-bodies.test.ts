import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Lease } from "../../durable-objects/lease.ts";
import { LEASE_ANSWER_MS } from "../../src/gate/held-lease.ts";
import { instanceOf } from "../../src/objects.ts";
import {
  type Agent,
  appendBySizeAlone,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  settlement,
  switchOf,
  upstream,
} from "./kit.ts";
import {
  answer,
  begin,
  flush,
  hang,
  holdsNothing,
  isRaw,
  isSame,
  leftOf,
  MIB,
  NOTHING_LEFT,
  noise,
  OBJECT,
  objectsOf,
  R2_DOWN,
  rawKey,
  reset,
  shortenTimer,
  storedAnswer,
  storedBody,
  upload,
  verified,
  watchBucket,
  withMaxHeld,
} from "./raw-kit.ts";
import { giveUpOrphans } from "./resume-kit.ts";

/** Large bodies of an instance, whatever happens to the object or to R2 meanwhile. */
vi.setConfig({ testTimeout: 120_000 });
afterEach(() => vi.restoreAllMocks());

const NO_TAIL = settlement({ tail: new Uint8Array(0), heldBytes: 0 });
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const alarm = (agent: Agent): Promise<void> =>
  runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());

/** Nothing of raw bodies is left in the object, nothing counts as held, and the bucket verifies. */
async function expectDone(agent: Agent): Promise<void> {
  expect(await leftOf(agent)).toEqual(NOTHING_LEFT);
  expect(await holdsNothing(agent)).toBe(true);
  expect((await verified(agent)).undigestedBodies).toEqual([]);
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (await holds()) return;
    await pause(10);
  }
  throw new Error("it never came to that");
}

describe("an object that is reset in the middle of raw bodies", () => {
  const request = noise(OBJECT + 2 * MIB, 1);
  const came = noise(2 * OBJECT + 3 * MIB, 2);

  /** Some objects in R2, one in a table, one half full. */
  async function halfWay(agent: Agent) {
    const watched = watchBucket(agent);
    const { seq, lease } = await upload(agent, request);
    await answer(lease, came.slice(0, OBJECT + MIB));
    await until(() => watched.stored.length === 2);
    watched.before = R2_DOWN;
    vi.spyOn(console, "error").mockImplementation(() => {});
    await answer(lease, came.slice(OBJECT + MIB));
    // Inline lines hold its first MiB, so the second object is full, and the third is not.
    return { seq, watched };
  }

  async function expectLost(agent: Agent, seq: number): Promise<void> {
    const { streamLeadBytes } = deployment.config.transcripts;
    expect(await storedAnswer(agent, seq)).toMatchObject({
      outcome: "lost",
      reason: "the object was reset while the call ran",
      body: { bytes: came.length, complete: false, mayMiss: streamLeadBytes, digest: expect.any(String) },
      requestBody: { bytes: request.length, complete: false, mayMiss: 0, digest: expect.any(String) },
    });
    expect(isSame(await storedBody(agent, seq, "answer"), came)).toBe(true);
    expect(isSame(await storedBody(agent, seq, "request"), request)).toBe(true);
  }

  it("records them as lost, with the digest of what is durable, and rewrites nothing", async () => {
    const agent = await enrolAgent();
    const { seq, watched } = await halfWay(agent);
    expect((await leftOf(agent)).tables).toEqual([
      `raw_${seq}_answer_1`,
      `raw_${seq}_answer_2`,
      `raw_${seq}_request_1`,
    ]);
    await reset(agent);
    watched.before = () => {};
    await flush(agent);
    await flush(agent);
    await expectLost(agent, seq);
    const raw = watched.stored.filter(isRaw);
    expect(raw.length).toBe(new Set(raw).size);
    expect(raw).toHaveLength(5);
    await expectDone(agent);
  });

  it("once, where two alarms run at the same time", async () => {
    const agent = await enrolAgent();
    const { seq, watched } = await halfWay(agent);
    await reset(agent);
    watched.before = () => pause(20);
    await Promise.all([flush(agent), flush(agent)]);
    await flush(agent);
    await expectLost(agent, seq);
    expect(new Set(watched.stored).size).toBe(watched.stored.length);
    await expectDone(agent);
  });

  it("and again while their record is made", async () => {
    const agent = await enrolAgent();
    const { seq, watched } = await halfWay(agent);
    let isAsked = false;
    watched.beforeGet = () => {
      isAsked = true;
      return hang();
    };
    await reset(agent);
    void alarm(agent).catch(() => {});
    await until(() => isAsked);
    await reset(agent);
    watched.before = watched.beforeGet = () => {};
    await flush(agent);
    await expectLost(agent, seq);
    await expectDone(agent);
  });

  it("between a put and the drop of its table", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    const { seq, lease } = await begin(agent);
    watched.after = hang;
    await answer(lease, came.slice(0, OBJECT + 2 * MIB), came.length);
    await until(() => watched.stored.length === 1);
    await reset(agent);
    watched.after = () => {};
    await flush(agent);
    const { body } = await storedAnswer(agent, seq);
    expect(body).toMatchObject({ bytes: OBJECT + 2 * MIB, complete: false });
    expect(watched.stored.filter(isRaw)).toEqual([0, 1].map((no) => rawKey(agent, seq, "answer", no)));
    await expectDone(agent);
  });

  it.each([
    ["fails", R2_DOWN],
    ["does not answer", hang],
  ])("keeps the deadline, though a read of R2 for their record %s", async (_name, failure) => {
    const agent = await enrolAgent();
    const { seq, watched } = await halfWay(agent);
    // Before the reset: its alarm may run at any time behind it.
    shortenTimer(10_000, 300);
    watched.beforeGet = failure;
    await reset(agent);
    const { lease } = await begin(agent);
    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    const alarming = alarm(agent);
    expect(await lease.broken()).toBe("expired");
    await lease.settle(settlement({ outcome: "cut" }));
    await alarming;
    // Nothing is recorded behind the end: it waits for those that are lost.
    expect((await instanceOf(deployment, agent.id).read(0, 1_000))?.lines.join("")).not.toContain('"type":"ended"');
    watched.before = watched.beforeGet = () => {};
    vi.mocked(setTimeout).mockRestore();
    // Those reads hang for good.
    await reset(agent);
    await alarm(agent);
    clock.mockRestore();
    await expectLost(agent, seq);
    expect((await verified(agent)).status).toBe("ended");
    expect(await leftOf(agent)).toEqual(NOTHING_LEFT);
  });

  it("tells what of them was erased in R2 meanwhile, and goes on", async () => {
    const agent = await enrolAgent();
    const { seq, watched } = await halfWay(agent);
    await env.TRANSCRIPTS.delete(rawKey(agent, seq, "answer", 0));
    await env.TRANSCRIPTS.delete(rawKey(agent, seq, "request", 0));
    await reset(agent);
    watched.before = () => {};
    await flush(agent);
    const { body, requestBody } = await storedAnswer(agent, seq);
    for (const [reference, length] of [[body, came.length] as const, [requestBody, request.length] as const]) {
      expect(reference).toMatchObject({ digest: null, bytes: null, complete: false });
      expect(reference?.mayMiss).toBeGreaterThanOrEqual(length);
    }
    expect(await leftOf(agent)).toEqual(NOTHING_LEFT);
    expect(await holdsNothing(agent)).toBe(true);
    expect((await verified(agent)).undigestedBodies.map(({ part }) => part)).toEqual(["request", "answer"]);
  });
});

describe("a Worker that falls silent in the middle of raw bodies", () => {
  it("leaves a lost call, with the digest of what it has appended", async () => {
    const agent = await enrolAgent();
    const [request, came] = [noise(2 * MIB, 1), noise(OBJECT + 2 * MIB, 2)];
    const { seq, lease } = await upload(agent, request);
    await answer(lease, came);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 20_001);
    await flush(agent);
    clock.mockRestore();
    expect(await lease.append(noise(MIB), null)).toBeNull();
    await flush(agent);
    const { streamLeadBytes } = deployment.config.transcripts;
    expect(await storedAnswer(agent, seq)).toMatchObject({
      outcome: "lost",
      reason: "the Worker that pumped this call is gone",
      body: { bytes: came.length, complete: false, mayMiss: streamLeadBytes },
      requestBody: { bytes: request.length, complete: true },
    });
    expect(isSame(await storedBody(agent, seq, "answer"), came)).toBe(true);
    await expectDone(agent);
  });
});

describe("a write that fails", () => {
  it.each([
    ["a table", "CREATE TABLE raw_", 1],
    ["the second table", "CREATE TABLE raw_", 2],
    ["a run", "INSERT INTO raw_", 3],
    ["what is known of a body", "INSERT OR REPLACE INTO kept", 1],
    ["the line that stands for it", "INSERT INTO log_", 1],
  ])("of %s leaves nothing that its record does not speak of", async (_name, query, nth) => {
    const agent = await enrolAgent();
    const { seq, lease } = await begin(agent);
    await runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
      const exec = sql.exec.bind(sql);
      let left = nth;
      vi.spyOn(sql, "exec").mockImplementation(((text: string, ...bindings: unknown[]) => {
        if (text.startsWith(query) && --left === 0) throw new Error("SQLITE_FULL");
        return exec(text, ...bindings);
      }) as typeof sql.exec);
    });
    const bytes = noise(OBJECT + 2 * MIB);
    // The digest in memory counts bytes that are not here: nothing of it may be settled.
    await expect(answer(lease, bytes, bytes.length)).rejects.toThrow();
    vi.restoreAllMocks();
    await giveUpOrphans(agent);
    await flush(agent);
    const { body, outcome } = await storedAnswer(agent, seq);
    expect(outcome).toBe("lost");
    const kept = await storedBody(agent, seq, "answer");
    expect(body.bytes).toBe(kept.length);
    expect(isSame(kept, bytes.slice(0, kept.length))).toBe(true);
    await expectDone(agent);
  });
});

describe("while R2 can't be written", () => {
  it("a body is held up to the bound, then cut, and calls are refused until all of it is stored", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    let tries = 0;
    watched.before = () => {
      tries++;
      return R2_DOWN();
    };
    const said = vi.spyOn(console, "error").mockImplementation(() => {});
    const bytes = noise(30 * MIB);
    const seq = await withMaxHeld(20 * MIB, async () => {
      const { seq, lease } = await begin(agent);
      expect(await answer(lease, bytes)).toBe(false);
      // It is not asked again at each run.
      expect(tries).toBe(1);
      expect(await lease.broken()).toBe("log-full");
      expect(await lease.settle(settlement({ outcome: "cut", tail: bytes.slice(-5) }))).toBe("log-full");
      const refused = await instanceOf(deployment, agent.id).admit(agent.admission());
      expect(refused).toMatchObject({
        denial: { kind: "unavailable", reason: expect.stringContaining("log is full") },
      });
      await flush(agent);
      expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({ admitted: false });
      watched.before = () => {};
      await flush(agent);
      const again = await begin(agent);
      await again.lease.settle(NO_TAIL);
      return seq;
    });
    expect(said).toHaveBeenCalledWith("flush failed", "R2 is down");
    expect(await storedAnswer(agent, seq)).toMatchObject({
      outcome: "cut",
      cause: "log-full",
      body: { complete: false, bytes: 20 * MIB + 5 },
    });
    const kept = await storedBody(agent, seq, "answer");
    expect(isSame(kept, Buffer.concat([bytes.slice(0, 20 * MIB), bytes.slice(-5)]))).toBe(true);
    await flush(agent);
    await expectDone(agent);
  });

  it("a kill cuts a raw body, and all of it is stored when R2 is back", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    watched.before = R2_DOWN;
    vi.spyOn(console, "error").mockImplementation(() => {});
    const bytes = noise(OBJECT + 2 * MIB);
    const { seq, lease } = await upload(agent, bytes);
    await answer(lease, bytes);
    const sw = switchOf({ reach: "instance", target: { instance: agent.id } });
    const closing = instanceOf(deployment, agent.id).close(sw);
    expect(await lease.broken()).toBe("switched");
    expect(await lease.append(bytes.slice(0, 9), null)).toBeNull();
    expect(await lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }))).toBe("switched");
    expect(await closing).toMatchObject({ cut: 1, unconfirmed: 0 });
    await flush(agent);
    watched.before = () => {};
    await flush(agent);
    expect(await storedAnswer(agent, seq)).toMatchObject({
      outcome: "cut",
      switch: sw.id,
      // What came with the refused append may have been passed: it is on record.
      body: { complete: false, bytes: bytes.length + 9 },
      requestBody: { complete: true, bytes: bytes.length },
    });
    expect(await leftOf(agent)).toEqual(NOTHING_LEFT);
    await verified(agent);
  });

  it("a foreign object at a key is named, never overwritten, and the instance goes on holding", async () => {
    const agent = await enrolAgent();
    const said = vi.spyOn(console, "error").mockImplementation(() => {});
    const { seq, lease } = await begin(agent);
    const key = rawKey(agent, seq, "answer", 0);
    await env.TRANSCRIPTS.put(key, noise(OBJECT, 99));
    const bytes = noise(2 * OBJECT);
    await answer(lease, bytes, bytes.length);
    expect(await lease.settle(NO_TAIL)).toBe(true);
    await flush(agent);
    expect(said).toHaveBeenCalledWith("flush failed", `${key}: another object stands there`);
    expect(isSame(await (await env.TRANSCRIPTS.get(key))!.bytes(), noise(OBJECT, 99))).toBe(true);
    expect((await leftOf(agent)).tables).toEqual([`raw_${seq}_answer_0`]);
    // No segment is ahead of its bodies.
    expect([...(await objectsOf(agent)).keys()].filter((one) => one.startsWith("transcripts/"))).toEqual([]);
    expect(await holdsNothing(agent)).toBe(false);
    await env.TRANSCRIPTS.delete(key);
    await flush(agent);
    expect(isSame(await storedBody(agent, seq, "answer"), bytes)).toBe(true);
    await expectDone(agent);
  });
});

describe("while R2 is slow", () => {
  it("an upload is slowed, not cut, and little is held", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    let appended = 0;
    let mostHeld = 0;
    const held = () => appended - OBJECT * watched.stored.filter(isRaw).length;
    watched.before = () => pause(250);
    const bytes = noise(72 * MIB);
    const { seq, lease } = await begin(agent, bytes.slice(0, MIB));
    appended = MIB;
    for (let at = MIB; at < bytes.length; at += MIB) {
      expect(await lease.appendRequest(bytes.slice(at, at + MIB), at + MIB === bytes.length)).toBe(true);
      appended += MIB;
      mostHeld = Math.max(mostHeld, held());
    }
    expect(mostHeld).toBeLessThanOrEqual(33 * MIB);
    expect(mostHeld).toBeGreaterThan(OBJECT);
    await lease.settle(NO_TAIL);
    await flush(agent);
    expect((await storedAnswer(agent, seq)).requestBody).toMatchObject({ bytes: bytes.length, complete: true });
    expect(isSame(await storedBody(agent, seq, "request"), bytes)).toBe(true);
    await expectDone(agent);
  });

  it("who appends is held back for less than its Worker's patience where R2 takes nothing", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    const { lease } = await begin(agent);
    const bytes = noise(33 * MIB);
    watched.before = hang;
    expect(await answer(lease, bytes.slice(0, 32 * MIB), bytes.length)).toBe(true);
    const startedAtMs = Date.now();
    expect(await lease.append(bytes.slice(32 * MIB), null)).not.toBeNull();
    const heldBackMs = Date.now() - startedAtMs;
    expect(heldBackMs).toBeGreaterThan(2_000);
    expect(heldBackMs).toBeLessThan(LEASE_ANSWER_MS);
    await lease.settle(NO_TAIL);
  });

  it("the alarm comes to its end, and the deadline is kept", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    const { seq, lease } = await begin(agent);
    const bytes = noise(OBJECT + 2 * MIB);
    watched.before = hang;
    shortenTimer(10_000, 50);
    await answer(lease, bytes, bytes.length);
    await flush(agent);
    // Bodies go first.
    expect([...(await objectsOf(agent)).keys()]).toEqual([]);
    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    const ending = alarm(agent);
    expect(await lease.broken()).toBe("expired");
    expect(await lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }))).toBe("expired");
    await ending;
    watched.before = () => {};
    vi.mocked(setTimeout).mockRestore();
    await reset(agent);
    await alarm(agent);
    clock.mockRestore();
    expect(await storedAnswer(agent, seq)).toMatchObject({
      outcome: "cut",
      cause: "expired",
      body: { bytes: bytes.length, complete: false },
    });
    expect(await verified(agent)).toMatchObject({ status: "ended", openCalls: [] });
    expect(await leftOf(agent)).toEqual(NOTHING_LEFT);
  });

  it("the alarm joins what is being stored already", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    const { seq, lease } = await begin(agent);
    const keys: string[] = [];
    let isLetGo = false;
    watched.before = async (key) => {
      keys.push(key);
      while (!isLetGo) await pause(5);
    };
    const bytes = noise(OBJECT + 5);
    await answer(lease, bytes, bytes.length);
    expect(keys.length).toBe(1);
    await lease.settle(NO_TAIL);
    const flushing = flush(agent);
    await pause(50);
    isLetGo = true;
    await flushing;
    expect(keys.filter(isRaw)).toEqual([0, 1].map((no) => rawKey(agent, seq, "answer", no)));
    // The last of them became full when the first was on its way: its segment waited for it all the same.
    expect(keys.findIndex((key) => key.startsWith("transcripts/"))).toBe(keys.length - 1);
    await expectDone(agent);
  });
});

describe("many at once", () => {
  it("large bodies of one instance stay apart", async () => {
    const agent = await enrolAgent();
    const sizes = [OBJECT + 3, 2 * MIB, MIB + 1, 3 * MIB, OBJECT, 1_500_000, 2 * MIB, 1_200_000];
    const calls = await Promise.all(
      sizes.map(async (size, i) => {
        const request = noise(size, 100 + i);
        const came = noise(sizes.at(-1 - i)!, 200 + i);
        const { seq, lease } = await upload(agent, request);
        expect(await answer(lease, came, i % 2 === 0 ? came.length : null)).toBe(true);
        expect(await lease.settle(NO_TAIL)).toBe(true);
        return { seq, request, came };
      }),
    );
    await flush(agent);
    for (const { seq, request, came } of calls) {
      expect(isSame(await storedBody(agent, seq, "request"), request)).toBe(true);
      expect(isSame(await storedBody(agent, seq, "answer"), came)).toBe(true);
    }
    await expectDone(agent);
  });
});

describe("through the gate", () => {
  /** A source that is pulled, of a declared length or none. */
  const source = (bytes: Uint8Array, headers: Record<string, string> = {}): Response => {
    let at = 0;
    const body = new ReadableStream({
      type: "bytes",
      pull(controller: ReadableByteStreamController) {
        if (at >= bytes.length) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        controller.enqueue(bytes.slice(at, at + 65_536));
        at += 65_536;
      },
    } as UnderlyingByteSource);
    return new Response(body, { headers: { "content-type": "application/octet-stream", ...headers } });
  };

  async function costOf(agent: Agent, work: () => Promise<unknown>) {
    const statements: string[] = [];
    await runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
      const exec = sql.exec.bind(sql);
      vi.spyOn(sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        statements.push(query.trim());
        return exec(query, ...bindings);
      }) as typeof sql.exec);
    });
    await work();
    const count = (start: string) => statements.filter((statement) => statement.startsWith(start)).length;
    return {
      log: count("INSERT INTO log_"),
      raw: count("INSERT INTO raw_"),
      tables: count("CREATE TABLE raw_") + count("DROP TABLE raw_"),
      kept: count("INSERT OR REPLACE INTO kept") + count("DELETE FROM kept"),
    };
  }

  it.each([
    ["64 KiB", 65_536],
    ["1 MiB", MIB],
  ])("an answer of %s costs no raw table and no kept row", async (_name, size) => {
    appendBySizeAlone();
    const agent = await enrolAgent();
    upstream(() => source(noise(size), { "content-length": String(size) }));
    const watched = watchBucket(agent);
    const { log, ...raw } = await costOf(agent, async () => (await agent.call(ISSUES)).bytes());
    expect(raw).toEqual({ raw: 0, tables: 0, kept: 0 });
    expect(log).toBeLessThanOrEqual(2 + size / 262_144);
    await flush(agent);
    expect(watched.stored.filter(isRaw)).toEqual([]);
  });

  it("an answer of 10 MiB costs a row for each run, and a put for each object", async () => {
    appendBySizeAlone();
    const agent = await enrolAgent();
    const size = 10 * MIB;
    upstream(() => source(noise(size), { "content-length": String(size) }));
    const watched = watchBucket(agent);
    const cost = await costOf(agent, async () => {
      expect(isSame(await (await agent.call(ISSUES)).bytes(), noise(size))).toBe(true);
      await flush(agent);
    });
    // A run is cut where the first object is full.
    expect(cost.raw).toBeLessThanOrEqual(size / 262_144 + 2);
    // The call, its answer, the line that stands for the body; two tables; a row for each object when it begins and
    // when it is stored, and one for the segment when it is sealed and when it is stored.
    expect(cost).toMatchObject({ log: 3, tables: 4 });
    expect(cost.kept).toBeLessThanOrEqual(4 + 2);
    expect(watched.stored).toHaveLength(2 + 2);
    await expectDone(agent);
  });

  it("a stream leads what is durable by no more than its bound, and ends where nothing more is kept", async () => {
    const agent = await enrolAgent();
    const { streamLeadBytes } = deployment.config.transcripts;
    shortenTimer(LEASE_ANSWER_MS, 100);
    upstream(() => source(noise(4 * MIB)));
    const append = vi.spyOn(Lease.prototype, "append");
    let durable = 0;
    append.mockImplementation(async function (this: Lease, bytes: Uint8Array) {
      if (durable >= 2 * MIB) return hang();
      durable += bytes.length;
      return streamLeadBytes;
    });
    const reader = (await agent.call(ISSUES)).body!.getReader();
    let passed = 0;
    let most = 0;
    // Nobody could cut it any more, so it cuts itself.
    await expect(
      (async () => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          passed += value.length;
          most = Math.max(most, passed - durable);
        }
      })(),
    ).rejects.toThrow();
    expect(passed).toBeGreaterThan(2 * MIB - streamLeadBytes);
    expect(most).toBeLessThanOrEqual(streamLeadBytes);
  });
});
