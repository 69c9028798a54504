// The bucket is gone: what the log holds then, what is refused, what is cut, and that nothing is lost when it returns.

import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterEach, describe, expect, it, vi } from "vitest";
import { instanceOf } from "../../src/objects.ts";
import config from "./config.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  type Line,
  recordsOf,
  typesOf,
  upstream,
} from "./kit.ts";

const transcripts = config.transcripts as { maxHeldBytes: number };
const { maxHeldBytes } = transcripts;
afterEach(() => {
  transcripts.maxHeldBytes = maxHeldBytes;
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** The object's bucket, until it is put away. What is not given goes to the real one. */
async function putBefore(agent: Agent, over: Partial<R2Bucket>): Promise<void> {
  const real = env.TRANSCRIPTS;
  const bucket = { get: real.get.bind(real), put: real.put.bind(real), list: real.list.bind(real), ...over };
  await runInDurableObject(instanceStub(agent.id), (instance) => {
    const patched = instance as unknown as { env: object };
    patched.env = { ...patched.env, TRANSCRIPTS: bucket };
  });
}

const DOWN: Partial<R2Bucket> = {
  put: () => Promise.reject(new Error("R2 is down")),
  get: () => Promise.reject(new Error("R2 is down")),
  head: () => Promise.reject(new Error("R2 is down")),
};

/** Makes everything due, and rings `times` at once. */
async function ring(agent: Agent, times = 1): Promise<void> {
  const later = Date.now() + config.transcripts.flushAfterMs + 1;
  await runInDurableObject(instanceStub(agent.id), async (instance) => {
    const clock = vi.spyOn(Date, "now").mockReturnValue(later);
    try {
      await Promise.all(Array.from({ length: times }, () => instance.alarm()));
    } finally {
      clock.mockRestore();
    }
  });
}

const spoken = () => vi.spyOn(console, "error").mockImplementation(() => {});
const partitionOf = (agent: Agent) => `human=human-1/task=build-platform_t1/instance=${agent.id}`;

async function keysOf(agent: Agent): Promise<string[]> {
  const { objects } = await env.TRANSCRIPTS.list();
  return objects.map(({ key }) => key).filter((key) => key.includes(partitionOf(agent)));
}

/** Every record that is in the bucket, in order. */
async function storedRecords(agent: Agent): Promise<Line[]> {
  const lines: Line[] = [];
  for (const key of (await keysOf(agent)).filter((name) => name.startsWith("transcripts/")).sort()) {
    const object = new Uint8Array(await (await env.TRANSCRIPTS.get(key))!.arrayBuffer());
    const text = new TextDecoder().decode(gunzipSync(object));
    lines.push(...text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Line])));
  }
  return lines.filter(({ type }) => type !== "seal");
}

describe("while R2 is down", () => {
  it("the log holds what it can, then calls are refused; when R2 returns nothing is lost, and calls are admitted", async () => {
    transcripts.maxHeldBytes = 40_000;
    const agent = await enrolAgent();
    const log = spoken();
    await putBefore(agent, DOWN);
    const sent = upstream(() => Response.json({ text: "x".repeat(4_000) }));
    let passed = 0;
    let refused: Response;
    for (;;) {
      refused = await agent.call(ISSUES);
      if (refused.status !== 200) break;
      await refused.text();
      passed++;
      await ring(agent);
    }
    expect(passed).toBeGreaterThan(3);
    expect(sent).toHaveBeenCalledTimes(passed);
    // What any broken part of the gate looks like, and nothing more.
    const problem = { type: "about:blank", title: "Service Unavailable", status: 503 };
    expect([await refused.json(), refused.headers.get("retry-after")]).toEqual([problem, "1"]);
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    expect(admission).toEqual({
      admitted: false,
      denial: { kind: "unavailable", reason: "the log is full: R2 can't be written" },
    });
    expect(log.mock.calls[0]).toEqual(["flush failed", "R2 is down"]);
    // An object that starts anew counts what it holds from its rows.
    await runInDurableObject(instanceStub(agent.id), (_instance, state) => state.abort("reset by a test")).catch(
      () => {},
    );
    await putBefore(agent, DOWN);
    expect((await agent.call(ISSUES)).status).toBe(503);

    await putBefore(agent, {});
    await ring(agent);
    expect(await recordsOf(agent)).toEqual([]);
    const stored = await storedRecords(agent);
    expect(stored.map(({ seq }) => seq)).toEqual(stored.map((_, index) => index));
    expect(stored.filter(({ type }) => type === "answer")).toHaveLength(passed);
    expect((await agent.call(ISSUES)).status).toBe(200);
  });

  it("a running stream is cut when the log is full, and says why", async () => {
    transcripts.maxHeldBytes = 1_000_000;
    const agent = await enrolAgent();
    const run = new Uint8Array(65_536);
    upstream(
      () =>
        new Response(
          new ReadableStream({
            type: "bytes",
            pull: (controller) => controller.enqueue(run.slice()),
          } as UnderlyingByteSource),
        ),
    );
    spoken();
    await putBefore(agent, DOWN);
    const response = await agent.call(ISSUES);
    const reader = response.body!.getReader();
    let received = 0;
    await expect(
      (async () => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          received += value.length;
          if (received > 8_000_000) throw new RangeError("it runs on and on");
        }
      })(),
    ).rejects.not.toThrow(RangeError);
    await vi.waitFor(async () => {
      const answer = (await recordsOf(agent)).at(-1);
      expect(answer).toMatchObject({ type: "answer", outcome: "cut", cause: "log-full" });
      const { bytes } = answer!["body"] as { bytes: number };
      expect(bytes).toBeGreaterThanOrEqual(received);
    });
    // It takes no stream more; and what it holds is there when R2 returns.
    expect((await agent.call(ISSUES)).status).toBe(503);
    await putBefore(agent, {});
    await ring(agent);
    expect(typesOf(await storedRecords(agent))).toBe("enrolled call answer");
  });
});

describe("a put", () => {
  // Where workerd's zlib doubles its buffer beyond the bound that it is given.
  for (const bytes of [100, 50_000, 65_536, 100_000, 700_000])
    it(`that failed after having stored ${bytes} bytes of a body is found equal`, async () => {
      const agent = await enrolAgent();
      const body = new Uint8Array(bytes);
      for (let at = 0; at < bytes; at += 65_536)
        crypto.getRandomValues(body.subarray(at, Math.min(at + 65_536, bytes)));
      upstream(() => new Response(body, { headers: { "content-length": String(bytes) } }));
      await (await agent.call(ISSUES)).arrayBuffer();
      const log = spoken();
      const real = env.TRANSCRIPTS;
      await putBefore(agent, {
        put: (async (key: string, value: Uint8Array, options: R2PutOptions) => {
          const stored = await real.put(key, value, options);
          if (stored !== null) throw new Error("the answer was lost");
          return stored;
        }) as R2Bucket["put"],
      });
      const versions = async () => new Map((await real.list()).objects.map(({ key, version }) => [key, version]));
      // One more object stands after each try.
      await ring(agent);
      const first = await versions();
      for (let tries = 0; tries < 3; tries++) await ring(agent);
      expect(log.mock.calls.map(([, reason]) => reason)).toEqual(log.mock.calls.map(() => "the answer was lost"));
      expect(await recordsOf(agent)).toEqual([]);
      const last = await versions();
      for (const [key, version] of first) expect(last.get(key)).toBe(version);
    });

  it("finds other bodies in its place: they stay as they are, are named, and what is held goes on being held", async () => {
    const agent = await enrolAgent();
    const key = `bodies/${partitionOf(agent)}/0000000000.jsonl.gz`;
    const foreign = gzipSync(new TextEncoder().encode("foreign"));
    await env.TRANSCRIPTS.put(key, foreign);
    const log = spoken();
    for (let tries = 0; tries < 3; tries++) await ring(agent);
    expect(log.mock.calls).toEqual(
      Array.from({ length: 3 }, () => ["flush failed", `${key}: another object stands there`]),
    );
    expect(new Uint8Array(await (await env.TRANSCRIPTS.get(key))!.arrayBuffer())).toEqual(new Uint8Array(foreign));
    expect(await keysOf(agent)).toEqual([key]);
    // Fail closed: as soon as the log is full, nothing passes any more.
    expect(typesOf(await recordsOf(agent))).toBe("enrolled");
    transcripts.maxHeldBytes = 1;
    const sent = upstream(() => Response.json([]));
    expect((await agent.call(ISSUES)).status).toBe(503);
    expect(sent).not.toHaveBeenCalled();
  });

  it("that does not answer is given up after 30 s, and what it stores later does no harm", async () => {
    const agent = await enrolAgent();
    const log = spoken();
    const real = env.TRANSCRIPTS;
    const late = Promise.withResolvers<void>();
    let isStored: Promise<unknown> | undefined;
    await putBefore(agent, {
      put: ((key: string, value: Uint8Array, options: R2PutOptions) => {
        isStored ??= late.promise.then(() => real.put(key, value, options));
        return isStored;
      }) as R2Bucket["put"],
    });
    const timers: number[] = [];
    const { setTimeout: realTimeout } = globalThis;
    vi.spyOn(globalThis, "setTimeout").mockImplementation(((work: () => void, ms = 0) => {
      timers.push(ms);
      // Thirty seconds in a moment.
      return realTimeout(work, ms >= 30_000 ? 20 : ms);
    }) as typeof setTimeout);
    await ring(agent);
    expect(timers).toContain(30_000);
    expect(log.mock.calls[0]?.[1]).toContain("the put did not answer");
    expect(typesOf(await recordsOf(agent))).toBe("enrolled");
    vi.mocked(globalThis.setTimeout).mockRestore();
    // A second try is through before the first one stores.
    await putBefore(agent, {});
    await ring(agent);
    const before = (await real.list()).objects.map(({ key, version }) => `${key} ${version}`);
    late.resolve();
    await isStored;
    expect((await real.list()).objects.map(({ key, version }) => `${key} ${version}`)).toEqual(before);
    expect(await recordsOf(agent)).toEqual([]);
  });
});

describe("an alarm", () => {
  it("that rings three times at once, and again, stores once", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([{ number: 1 }]));
    await (await agent.call(ISSUES)).text();
    const log = spoken();
    await ring(agent, 3);
    await ring(agent);
    expect(log).not.toHaveBeenCalled();
    expect(typesOf(await storedRecords(agent))).toBe("enrolled call answer");
    expect(await keysOf(agent)).toHaveLength(2);
    await (await agent.call(ISSUES)).text();
    await ring(agent, 3);
    const stored = await storedRecords(agent);
    expect(stored.map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4]);
  });

  it("that rings while another waits for R2 overtakes it without harm", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([{ number: 1 }]));
    await (await agent.call(ISSUES)).text();
    const log = spoken();
    const real = env.TRANSCRIPTS;
    let nth = 0;
    await putBefore(agent, {
      put: (async (key: string, value: Uint8Array, options: R2PutOptions) => {
        if (nth++ === 0) await new Promise((resolve) => setTimeout(resolve, 200));
        return real.put(key, value, options);
      }) as R2Bucket["put"],
    });
    await ring(agent, 2);
    await (await agent.call(ISSUES)).text();
    await ring(agent, 2);
    expect(log).not.toHaveBeenCalled();
    expect((await storedRecords(agent)).map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4]);
    expect(await recordsOf(agent)).toEqual([]);
    // What was stored twice was freed once: the bound stands.
    await putBefore(agent, DOWN);
    transcripts.maxHeldBytes = 1;
    expect((await agent.call(ISSUES)).status).toBe(200);
    expect((await agent.call(ISSUES)).status).toBe(503);
  });
});
