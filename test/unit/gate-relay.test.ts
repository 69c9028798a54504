import { describe, expect, it, vi } from "vitest";
import type { Admitted } from "../../src/gate/admit.ts";
import type { CallRedaction } from "../../src/gate/call-redaction.ts";
import { HeldLease } from "../../src/gate/held-lease.ts";
import { relay } from "../../src/gate/relay.ts";
import { Stop } from "../../src/gate/stop.ts";
import { Unrecorded } from "../../src/gate/unrecorded.ts";
import type { LeaseCalls, Settlement } from "../../src/instance/contract.ts";
import { ok } from "../../src/result.ts";

const upstream = {
  type: "http",
  baseUrl: "https://upstream.test",
  credential: { kind: "header", header: "x", secret: "S", value: "{secret}" },
  encodedSlash: "data",
  forwardHeaders: [],
  ranges: false,
  redact: [],
  meters: {},
  prices: {},
  firstByteTimeoutMs: 1_000,
  idleTimeoutMs: 1_000,
  totalTimeoutMs: 5_000,
  maxRequestBytes: 1_000,
  maxAnswerBytes: 10_000_000,
} as const;

/** An admitted call, whose lease answers as the test says and remembers what it was told. */
function callWith(answers: Partial<LeaseCalls> = {}) {
  const appended: string[] = [];
  const settled: Settlement[] = [];
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const lease: LeaseCalls = {
    broken: () => new Promise(() => {}),
    appendRequest: async () => true,
    beat: async () => true,
    ...answers,
    append: async (bytes, declaredBytes) => {
      appended.push(text(bytes));
      return answers.append === undefined ? 1_000_000 : answers.append(bytes, declaredBytes);
    },
    settle: async (settlement) => {
      settled.push(settlement);
      return answers.settle?.(settlement) ?? true;
    },
  };
  const stop = new Stop();
  const confirmed = vi.fn(async () => {});
  const waited: Promise<unknown>[] = [];
  const pass = (
    response: Response | null,
    over: { isHead?: boolean; leadBytes?: number; leadMs?: number; redaction?: CallRedaction } = {},
  ) =>
    relay(
      {
        seq: 1,
        lease: new HeldLease(lease, over.leadBytes ?? 1_000_000, stop, null),
        stop,
        listen: () => {},
        confirmStopped: confirmed,
      } as unknown as Admitted,
      { response, sent: { bytes: 0, lastAtMs: null }, guarded: [] },
      {
        upstream,
        lead: { streamLeadMs: over.leadMs ?? 10_000 },
        rewriting: {
          origin: "https://gate.test",
          askedUrl: "https://upstream.test/a",
          bases: () => [],
          hiddenParameter: null,
          takesRanges: true,
        },
        limitHeaders: [],
        metered: null,
        redaction: over.redaction ?? null,
        delegation: null,
        isHead: over.isHead ?? false,
        startedAtMs: Date.now(),
        waitUntil: (work) => void waited.push(work),
      },
    );
  return { pass, stop, appended, settled, confirmed, waited };
}

/** An answer whose body the test writes. */
function upstreamAnswer(headers: Record<string, string> = {}) {
  const { readable, writable } = new IdentityTransformStream();
  const writer = writable.getWriter();
  const write = (text: string) => writer.write(new TextEncoder().encode(text));
  return { response: new Response(readable, { headers }), writer, write };
}

/** Reads until the end or the break, saying which. */
async function readAll(body: ReadableStream<Uint8Array> | null | undefined) {
  let text = "";
  try {
    for await (const run of body ?? []) text += new TextDecoder().decode(run);
    return { text, isWhole: true };
  } catch {
    return { text, isWhole: false };
  }
}

const whole = () => new Response("abcdef", { headers: { "content-length": "6" } });
const denied = { ok: false, denial: { kind: "unauthenticated", code: "invalid_token" } };

describe("an answer that a switch overtook at its settlement", () => {
  it.each<[string, Response, boolean]>([
    ["whole", whole(), false],
    ["without a body", new Response(null, { status: 204 }), false],
    ["to HEAD", new Response(null, { headers: { "content-length": "6" } }), true],
  ])("%s: nothing of it passes", async (_name, response, isHead) => {
    const { pass, settled } = callWith({ settle: async () => false });
    expect(await pass(response, { isHead })).toMatchObject(denied);
    expect(settled).toHaveLength(1);
  });

  it.each(["text/plain", "text/event-stream"])("a stream of %s: its end never comes", async (type) => {
    const { pass, settled } = callWith({ settle: async () => false });
    const { response, write, writer } = upstreamAnswer({ "content-type": type });
    const relayed = await pass(response);
    void write("abcdef").then(() => writer.close());
    const heard = await readAll(relayed.ok ? relayed.response.body : null);
    expect(heard).toEqual({ text: type === "text/plain" ? "abcde" : "abcdef", isWhole: false });
    expect(settled).toHaveLength(1);
  });
});

describe("an answer that is withheld", () => {
  it.each([401, 407])("%d, and then the upstream falls silent: what had come is on record", async (status) => {
    const { pass, settled } = callWith();
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    const passing = pass(new Response(readable, { status }));
    await writer.write(new TextEncoder().encode("who is "));
    await writer.write(new TextEncoder().encode("this?"));
    expect(await passing).toMatchObject({ ok: false, denial: { kind: "upstream-failed", status: 502 } });
    expect(settled.map(({ outcome, tail }) => [outcome, new TextDecoder().decode(tail)])).toEqual([
      ["upstream-failed", "who is this?"],
    ]);
  });
});

describe("an answer that comes byte by byte", () => {
  it.each<[string, ResponseInit]>([
    ["streamed", { headers: { "content-type": "text/event-stream" } }],
    ["whole", { headers: { "content-length": "8" } }],
    ["withheld", { status: 401 }],
  ])("%s: what waits for its record takes no more memory than twice its bytes", async (_name, init) => {
    const held: ArrayBufferLike[] = [];
    const adding = vi.spyOn(Unrecorded.prototype, "add").mockImplementation((run) => void held.push(run.buffer));
    try {
      const { pass, waited } = callWith();
      const { readable, writable } = new IdentityTransformStream();
      const writer = writable.getWriter();
      const passing = pass(new Response(readable, init));
      const writing = (async () => {
        for (const byte of "abcdefgh") await writer.write(new TextEncoder().encode(byte));
        await writer.close();
      })();
      const relayed = await passing;
      if (relayed.ok) await readAll(relayed.response.body);
      await Promise.all([writing, ...waited]);
      expect(held.length).toBeGreaterThan(1);
      expect(held.reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThanOrEqual(16);
    } finally {
      adding.mockRestore();
    }
  });
});

describe("a short answer of a declared length", () => {
  it("that comes slower than the record may lag is whole, for the agent and on record", async () => {
    const { pass, appended, settled } = callWith();
    const { response, write, writer } = upstreamAnswer({ "content-length": "6" });
    const relaying = pass(response, { leadMs: 20 });
    await write("abc");
    await vi.waitFor(() => expect(appended).toEqual(["abc"]));
    void write("def").then(() => writer.close());
    const relayed = await relaying;
    expect(relayed.ok && (await relayed.response.text())).toBe("abcdef");
    expect(settled.map(({ outcome, tail }) => [outcome, new TextDecoder().decode(tail)])).toEqual([
      ["complete", "def"],
    ]);
  });
});

describe("an answer that is redacted", () => {
  it("is whole in however many runs it comes", async () => {
    const redaction = {
      hasAnswerFields: true,
      answerHead: (head: unknown) => head,
      answerBody: (body: Uint8Array) => ok(body),
      answer: { applied: [], values: [], body: null },
    } as unknown as CallRedaction;
    const { pass, settled } = callWith();
    let left = 150_000;
    const body = new ReadableStream({
      pull: (controller) => (left-- === 0 ? controller.close() : controller.enqueue(new Uint8Array([97]))),
    });
    const relayed = await pass(new Response(body), { redaction });
    expect(relayed.ok && (await relayed.response.text()).length).toBe(150_000);
    expect(settled).toMatchObject([{ outcome: "complete", heldBytes: 150_000 }]);
  });
});

describe("a lease that is lost", () => {
  it("at the settlement of a whole answer", async () => {
    const { pass } = callWith({ settle: () => Promise.reject(new Error("reset")) });
    expect(await pass(whole())).toMatchObject({ ok: false, denial: { kind: "unavailable" } });
  });

  it("at an append: the stream is cut, nothing is said on that lease any more, and the object hears that it stopped", async () => {
    const { pass, settled, confirmed } = callWith({ append: () => Promise.reject(new Error("reset")) });
    const { response, write } = upstreamAnswer();
    const relayed = await pass(response, { leadBytes: 4 });
    void write("abcdef").catch(() => {});
    expect(await readAll(relayed.ok ? relayed.response.body : null)).toEqual({ text: "", isWhole: false });
    await vi.waitFor(() => expect(confirmed).toHaveBeenCalledOnce());
    expect(settled).toEqual([]);
  });
});

describe("a stream", () => {
  it("holds its last byte until the settlement is durable", async () => {
    const durable = Promise.withResolvers<boolean>();
    const { pass, settled } = callWith({ settle: () => durable.promise });
    const { response, write, writer } = upstreamAnswer();
    const relayed = await pass(response);
    void write("abcdef").then(() => writer.close());
    let text = "";
    const reading = (async () => {
      for await (const run of relayed.ok ? relayed.response.body! : []) text += new TextDecoder().decode(run);
    })();
    await expect.poll(() => settled.length).toBe(1);
    expect(text).toBe("abcde");
    durable.resolve(true);
    await reading;
    expect([text, settled[0]?.outcome, (settled[0]?.passedBytes ?? 0) + (settled[0]?.heldBytes ?? 0)]).toEqual([
      "abcdef",
      "complete",
      6,
    ]);
  });

  it("leads its record by no more bytes than it may", async () => {
    const { pass, appended, settled } = callWith();
    const { response, write, writer } = upstreamAnswer({ "content-type": "text/event-stream" });
    const relayed = await pass(response, { leadBytes: 6, leadMs: 60_000 });
    const reading = readAll(relayed.ok ? relayed.response.body : null);
    await write("abc");
    await write("def");
    expect(appended).toEqual([]);
    await write("g");
    await expect.poll(() => appended).toEqual(["abcdefg"]);
    await writer.close();
    expect(await reading).toEqual({ text: "abcdefg", isWhole: true });
    expect(settled).toMatchObject([{ outcome: "complete", passedBytes: 7, tail: new Uint8Array(0) }]);
  });

  it("leads its record no longer than it may", async () => {
    const { pass, appended, settled } = callWith();
    const { response, write, writer } = upstreamAnswer({ "content-type": "text/event-stream" });
    const relayed = await pass(response, { leadBytes: 1_000, leadMs: 40 });
    const reading = readAll(relayed.ok ? relayed.response.body : null);
    await write("abc");
    await expect.poll(() => appended).toEqual(["abc"]);
    await write("d");
    await expect.poll(() => appended).toEqual(["abc", "d"]);
    await writer.close();
    expect(await reading).toEqual({ text: "abcd", isWhole: true });
    expect(settled).toMatchObject([{ outcome: "complete", passedBytes: 4, tail: new Uint8Array(0) }]);
  });

  it("whose lease is no more, as an append says, passes nothing from then on, though nobody says why", async () => {
    const { pass, stop, appended } = callWith({ append: async () => null });
    const { response, write } = upstreamAnswer({ "content-type": "text/event-stream" });
    const relayed = await pass(response, { leadBytes: 8, leadMs: 20 });
    let got = "";
    const reading = (async () => {
      for await (const run of relayed.ok ? relayed.response.body! : []) got += new TextDecoder().decode(run);
    })().catch(() => {});
    const writing = (async () => {
      while (stop.reason === null) {
        void write("abcd").catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
    })();
    await vi.waitFor(() => expect(appended.length).toBeGreaterThan(0));
    const passed = got.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([passed, got.length - passed, stop.reason]).toEqual([expect.any(Number), 0, null]);
    expect(passed).toBeLessThanOrEqual(8);
    stop.stop({ kind: "cut", cause: "switched" });
    await Promise.all([reading, writing]);
  });

  it("whose counts are told out of turn passes no more than the newest allows", async () => {
    const told: PromiseWithResolvers<number>[] = [];
    const tell = (): Promise<number> => {
      told.push(Promise.withResolvers<number>());
      return told.at(-1)!.promise;
    };
    const { pass, appended } = callWith({ append: tell });
    const { response, write } = upstreamAnswer({ "content-type": "text/event-stream" });
    const relayed = await pass(response, { leadBytes: 10, leadMs: 50 });
    const heard: string[] = [];
    void (async () => {
      for await (const run of (relayed.ok && relayed.response.body) || []) heard.push(new TextDecoder().decode(run));
    })().catch(() => {});
    // By time, then because more came than may pass.
    await write("aaaa");
    await vi.waitFor(() => expect(appended).toEqual(["aaaa"]));
    await write("bbbbbbb");
    await vi.waitFor(() => expect(appended).toEqual(["aaaa", "bbbbbbb"]));
    told[1]!.resolve(0);
    await new Promise((resolve) => setTimeout(resolve, 0));
    told[0]!.resolve(6);
    await vi.waitFor(() => expect(heard.join("")).toBe("aaaabbbbbbb"));
    await write("c");
    await vi.waitFor(() => expect(appended).toHaveLength(3));
    expect(heard.join("")).toBe("aaaabbbbbbb");
  });

  it("that its reader leaves is settled once, as that", async () => {
    const { pass, settled, stop, waited } = callWith();
    const { response, write } = upstreamAnswer();
    const relayed = await pass(response);
    void write("abcdef").catch(() => {});
    const reader = relayed.ok ? relayed.response.body!.getReader() : null;
    await reader?.read();
    await reader?.cancel();
    await Promise.all(waited);
    expect(settled).toMatchObject([{ outcome: "client-gone", passedBytes: 5, reason: null }]);
    expect(stop.signal.aborted).toBe(true);
  });

  it("that is stopped while nobody reads is cut and settled at once", async () => {
    const { pass, settled, stop } = callWith();
    const { response, write } = upstreamAnswer();
    const relayed = await pass(response);
    void write("abcdef").catch(() => {});
    const reader = relayed.ok ? relayed.response.body!.getReader() : null;
    await reader?.read();
    stop.stop({ kind: "cut", cause: "switched" });
    await expect.poll(() => settled).toMatchObject([{ outcome: "cut", passedBytes: 5 }]);
    await expect(reader?.read()).rejects.toThrow();
    expect(settled).toHaveLength(1);
  });
});

describe("no answer", () => {
  it("is settled as what it came to", async () => {
    const failed = callWith();
    expect(await failed.pass(null)).toMatchObject({ ok: false, denial: { kind: "upstream-failed", status: 502 } });
    expect(failed.settled).toMatchObject([{ outcome: "upstream-failed", head: null, passedBytes: 0 }]);
    const stopped = callWith();
    stopped.stop.stop({ kind: "timeout", what: "first byte" });
    expect(await stopped.pass(null)).toMatchObject({ ok: false, denial: { kind: "upstream-failed", status: 504 } });
  });

  it("an answer too large by its own word is none", async () => {
    const { pass, settled } = callWith();
    const { response } = upstreamAnswer({ "content-length": "10000001" });
    expect(await pass(response)).toMatchObject({ ok: false, denial: { kind: "upstream-failed", status: 502 } });
    expect(settled).toMatchObject([{ outcome: "too-large" }]);
  });
});
