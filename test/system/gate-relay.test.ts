// What an agent really receives of an upstream that does whatever it likes, and what of it stands on record.

import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, type Heard, type Instance, type Sent, startGateRig } from "./gate-rig.ts";
import { answerWith, type Behaviour, bodyOf, pause } from "./hostile-upstream.ts";

const MIB = 1_048_576;
const SIZES = { maxRequestBytes: 6 * MIB, maxAnswerBytes: 100 * MIB };
/** Only where it is these that end a call: elsewhere a busy machine would meet them. */
const IMPATIENT = { firstByteTimeoutMs: 900, idleTimeoutMs: 900, totalTimeoutMs: 3_500 };
let rig: GateRig;
let who: Instance;

beforeAll(async () => {
  rig = await startGateRig(SIZES);
  who = await rig.provision();
});
afterAll(() => rig.close());

/** Waits until it holds, or for so long. */
async function within(ms: number, holds: () => boolean): Promise<void> {
  for (const endMs = Date.now() + ms; !holds() && Date.now() < endMs; ) await pause(5);
}

let count = 0;
/** One call to an upstream that behaves so: what the agent heard, what is on record, with the recorded body. */
async function ask(behaviour: Behaviour, sent: Sent = {}, as = who) {
  const path = `/r/${++count}`;
  rig.upstream.on(path, behaviour);
  const heard = await rig.call(as, `/hostile${path}`, sent).catch((): Heard | null => null);
  const { call, answer } = await rig.recorded(as, `/hostile${path}`);
  const body = await rig.recordedBody(as, call.seq, "answer");
  return { path, heard, call, answer, body, reference: answer["body"] as { [name: string]: unknown } | null };
}

const inChunks =
  (runs: readonly (Buffer | string)[], headers: Record<string, string> = {}, gapMs = 5): Behaviour =>
  async (request, answer) => {
    request.resume();
    answer.writeHead(200, headers);
    for (const run of runs) {
      answer.write(run);
      await pause(gapMs);
    }
    answer.end();
  };

describe("an answer that comes whole", () => {
  const JSON_TYPE = { "content-type": "application/json" };
  const big = randomBytes(5 * MIB);
  it.each<[string, Behaviour, Buffer]>([
    ["small JSON", answerWith(200, JSON_TYPE, '{"a":1}'), Buffer.from('{"a":1}')],
    ["one byte", answerWith(200, {}, "x"), Buffer.from("x")],
    ["no byte, declared", answerWith(200, {}, ""), Buffer.alloc(0)],
    ["no byte, chunked", inChunks([]), Buffer.alloc(0)],
    ["one byte, chunked", inChunks(["x"]), Buffer.from("x")],
    ["bytes one by one", inChunks(["a", "b", "c", "d"]), Buffer.from("abcd")],
    ["chunked JSON", inChunks(['{"a":', "1}"], JSON_TYPE), Buffer.from('{"a":1}')],
    ["65536 bytes", answerWith(200, {}, big.subarray(0, 65_536)), big.subarray(0, 65_536)],
    ["65537 bytes", answerWith(200, {}, big.subarray(0, 65_537)), big.subarray(0, 65_537)],
    ["5 MiB, declared", answerWith(200, {}, big), big],
    ["5 MiB, chunked", inChunks([big.subarray(0, 2_000_001), big.subarray(2_000_001)]), big],
    ["an error of the upstream", answerWith(500, JSON_TYPE, '{"e":1}'), Buffer.from('{"e":1}')],
  ])("%s: the same bytes for the agent and the record", async (_name, behaviour, body) => {
    const got = await ask(behaviour);
    expect(got.heard?.isWhole).toBe(true);
    expect(got.heard?.body.equals(body)).toBe(true);
    expect(got.body.equals(body)).toBe(true);
    expect(got.answer).toMatchObject({ outcome: "complete", status: got.heard?.status, passedBytes: body.length });
    if (body.length > 0) expect(got.reference).toMatchObject({ bytes: body.length, complete: true });
    expect(got.heard?.headers["content-type"]).toBe(
      (got.answer["headers"] as [string, string][]).find(([n]) => n === "content-type")?.[1],
    );
  });

  it.each([204, 304, 205])("%d has a head and no body", async (status) => {
    const got = await ask((request, answer) => {
      request.resume();
      answer.writeHead(status, { etag: '"1"' }).end();
    });
    expect([got.heard?.status, got.heard?.headers.etag, got.heard?.body.length]).toEqual([status, '"1"', 0]);
    expect(got.answer).toMatchObject({ outcome: "complete", status, body: null, passedBytes: 0 });
  });

  it("HEAD has the length of what GET would give", async () => {
    const head = await ask(answerWith(200, JSON_TYPE, '{"a":1}'), { method: "HEAD" });
    expect([head.heard?.status, head.heard?.headers["content-length"], head.heard?.isWhole]).toEqual([200, "7", true]);
    expect(head.answer).toMatchObject({ outcome: "complete", body: null });
    const coded = await ask(answerWith(200, { "content-encoding": "gzip" }, gzipSync("{}")), { method: "HEAD" });
    expect([coded.heard?.status, coded.heard?.headers["content-length"]]).toEqual([200, undefined]);
  });

  it.each([999, 600, 700])("%d is no status", async (status) => {
    const got = await ask(answerWith(status, {}, "x"));
    expect(got.heard?.status).toBe(502);
    expect(got.answer).toMatchObject({ outcome: "upstream-failed", passedBytes: 0 });
  });
});

describe("an answer that comes in parts", () => {
  it("event by event, none waiting for the next, and the same bytes", async () => {
    let heardBeforeEnd = 0;
    const events = ["data: 1\n\n", "data: 2\n\n", ": comment\n\n", "data: [DONE]\n\n"];
    const heard: string[] = [];
    const got = await ask(
      async (request, answer) => {
        request.resume();
        answer.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
        // The next comes when the agent has heard this one; where it never hears it, all come at the end.
        for (const [i, event] of events.entries()) {
          answer.write(event);
          await within(4_000, () => heard.length > i);
        }
        heardBeforeEnd = heard.length;
        answer.end();
      },
      { onData: (run) => heard.push(run.toString()) },
    );
    expect([heard, heardBeforeEnd]).toEqual([events, events.length]);
    expect(got.body.toString()).toBe(events.join(""));
    expect(got.answer).toMatchObject({ outcome: "complete", passedBytes: events.join("").length });
  });

  it("of which the last byte waits", async () => {
    let before = "";
    let text = "";
    const got = await ask(
      async (request, answer) => {
        request.resume();
        answer.writeHead(200, { "content-type": "text/plain" });
        answer.write("abcdef");
        await within(4_000, () => text === "abcde");
        await pause(100);
        before = text;
        answer.end();
      },
      {
        onData: (run) => {
          text += run.toString();
        },
      },
    );
    expect([before, text, got.heard?.isWhole]).toEqual(["abcde", "abcdef", true]);
  });

  it("killed before its end, its last byte never comes, and the record says what passed", async () => {
    const doomed = await rig.provision();
    rig.upstream.on("/kill/last", async (request, answer) => {
      request.resume();
      answer.writeHead(200, { "content-type": "text/plain" });
      answer.write("abcdef");
    });
    let heardBytes = 0;
    const onData = (run: Buffer) => {
      heardBytes += run.length;
    };
    const calling = rig.call(doomed, "/hostile/kill/last", { onData });
    await within(10_000, () => heardBytes === 5);
    const killed = await rig.h.kill(doomed.id);
    expect(killed.json).toMatchObject({ reached: 1, cut: 1, unconfirmed: 0 });
    const heard = await calling;
    expect([heard.body.toString(), heard.isWhole]).toEqual(["abcde", false]);
    await rig.upstream.until("/kill/last", ({ isBrokenOff }) => isBrokenOff);
    const { call, answer } = await rig.recorded(doomed, "/hostile/kill/last");
    expect(answer).toMatchObject({
      outcome: "cut",
      cause: "switched",
      passedBytes: 5,
      body: { bytes: 6, complete: false },
    });
    expect((await rig.recordedBody(doomed, call.seq, "answer")).toString()).toBe("abcdef");
    expect((await rig.call(doomed, "/hostile/kill/last")).status).toBe(401);
  });

  it("killed while the agent does not read: cut and confirmed at once all the same", async () => {
    const doomed = await rig.provision();
    const path = "/kill/stalled";
    rig.upstream.on(path, async (request, answer) => {
      request.resume();
      answer.writeHead(200, { "content-type": "application/octet-stream" });
      while (!answer.destroyed)
        if (!answer.write(Buffer.alloc(65_536)))
          await Promise.race([new Promise((done) => answer.once("drain", done)), pause(100)]);
    });
    let wake = () => {};
    const calling = rig.call(doomed, `/hostile${path}`, {
      onHead: (answer) => {
        answer.pause();
        wake = () => void answer.resume();
      },
    });
    await rig.upstream.until(path);
    await pause(500);
    const startedAtMs = Date.now();
    expect((await rig.h.kill(doomed.id)).json).toMatchObject({ reached: 1, cut: 1, unconfirmed: 0 });
    expect(Date.now() - startedAtMs).toBeLessThan(10_000);
    await rig.upstream.until(path, ({ isBrokenOff }) => isBrokenOff);
    wake();
    expect((await calling).isWhole).toBe(false);
    expect((await rig.recorded(doomed, `/hostile${path}`)).answer).toMatchObject({ outcome: "cut", cause: "switched" });
  });

  it("killed before its head, the agent hears what any revoked token hears", async () => {
    const doomed = await rig.provision();
    rig.upstream.on("/kill/head", (request) => void request.resume());
    const calling = rig.call(doomed, "/hostile/kill/head");
    await rig.upstream.until("/kill/head");
    await pause(50);
    await rig.h.kill(doomed.id);
    const heard = await calling;
    expect(heard.status).toBe(401);
    expect(heard.headers["www-authenticate"]).toContain('error="invalid_token"');
    expect((await rig.recorded(doomed, "/hostile/kill/head")).answer).toMatchObject({
      outcome: "cut",
      status: null,
      passedBytes: 0,
    });
    await rig.upstream.until("/kill/head", ({ isBrokenOff }) => isBrokenOff);
  });
});

describe("an upstream that breaks off", () => {
  const broken =
    (behaviour: (answer: ServerResponse) => void): Behaviour =>
    (request, answer) => {
      request.resume();
      behaviour(answer);
      setTimeout(() => answer.socket?.destroy(), 60);
    };
  it.each<[string, (answer: ServerResponse) => void, number, string]>([
    ["before its head", () => {}, 0, ""],
    ["a short declared answer", (a) => void a.writeHead(200, { "content-length": 10 }).write("abc"), 0, "abc"],
    ["a short declared answer without a byte", (a) => a.writeHead(200, { "content-length": 10 }).flushHeaders(), 0, ""],
    ["a long declared answer", (a) => void a.writeHead(200, { "content-length": 100_000 }).write("abc"), 2, "abc"],
    ["a chunked answer", (a) => void a.writeHead(200).write("abc"), 2, "abc"],
    [
      "an event stream",
      (a) => void a.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n"),
      9,
      "data: 1\n\n",
    ],
  ])("%s", async (_name, behaviour, passedBytes, received) => {
    const got = await ask(broken(behaviour));
    if (passedBytes === 0) expect(got.heard?.status).toBe(502);
    else expect([got.heard?.status, got.heard?.isWhole, got.heard?.body.length]).toEqual([200, false, passedBytes]);
    expect(got.answer).toMatchObject({ outcome: "upstream-failed", passedBytes });
    expect(got.body.toString()).toBe(received);
    if (received !== "") expect(got.reference).toMatchObject({ complete: false, bytes: received.length });
  });

  it("a client hears the same of one that never listened", async () => {
    const heard = await ask(broken(() => {}));
    expect(JSON.parse(heard.heard?.body.toString() ?? "")).toEqual({
      type: "about:blank",
      title: "Bad Gateway",
      status: 502,
    });
  });
});

describe("an upstream that takes its time", () => {
  beforeAll(() => rig.restart({ ...SIZES, ...IMPATIENT }));
  afterAll(() => rig.restart(SIZES));

  it("never answers", async () => {
    const got = await ask((request) => void request.resume());
    expect(got.heard?.status).toBe(504);
    expect(got.answer).toMatchObject({ outcome: "timeout", reason: "first byte timeout", status: null });
    expect((await rig.upstream.until(got.path)).isBrokenOff).toBe(true);
  });

  it.each<[string, Record<string, string>, number]>([
    ["short", { "content-length": "10" }, 504],
    ["long", { "content-length": "100000" }, 200],
    ["chunked", {}, 200],
  ])("stalls in the middle of a %s answer", async (_name, headers, status) => {
    const got = await ask((request, answer) => {
      request.resume();
      answer.writeHead(200, headers).write("abc");
    });
    expect([got.heard?.status, status === 200 ? got.heard?.isWhole : false]).toEqual([status, false]);
    expect(got.answer).toMatchObject({
      outcome: "timeout",
      reason: "idle timeout",
      passedBytes: status === 200 ? 2 : 0,
    });
    await rig.upstream.until(got.path, ({ isBrokenOff }) => isBrokenOff);
  });

  it("trickles forever", async () => {
    const got = await ask((request, answer) => {
      request.resume();
      answer.writeHead(200);
      const timer = setInterval(() => answer.write("x"), 100);
      answer.on("close", () => clearInterval(timer));
    });
    expect([got.heard?.status, got.heard?.isWhole]).toEqual([200, false]);
    expect(got.answer).toMatchObject({ outcome: "timeout", reason: "total timeout" });
    expect(got.answer["passedBytes"]).toBe(got.heard?.body.length);
  });

  it("but no more than its agent: an upload is durable before it is forwarded, and may take longer than a first byte", async () => {
    async function* slow(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 44; i++) {
        yield Buffer.alloc(100_000, "s");
        await pause(80);
      }
    }
    // A busy machine makes it slower still, and the upstream's answer, too.
    await rig.restart({ ...SIZES, firstByteTimeoutMs: 3_000 });
    const got = await ask(answerWith(200, {}, "ok"), { method: "PUT", body: slow() });
    expect([got.heard?.status, got.answer["outcome"]]).toEqual([200, "complete"]);
  });
});

describe("content codings", () => {
  const text = JSON.stringify(Array.from({ length: 500 }, (_, i) => ({ id: i, name: `widget ${i}` })));
  it.each([
    ["gzip", gzipSync(text)],
    ["br", brotliCompressSync(text)],
  ] as const)("%s despite identity is decoded, for the agent and the record", async (coding, coded) => {
    for (const behaviour of [
      answerWith(200, { "content-encoding": coding, "content-type": "application/json" }, coded),
      inChunks([coded.subarray(0, 50), coded.subarray(50)], { "content-encoding": coding }),
    ]) {
      const got = await ask(behaviour);
      expect(got.heard?.headers["content-encoding"]).toBeUndefined();
      expect([got.heard?.isWhole, got.heard?.body.toString()]).toEqual([true, text]);
      expect(got.body.toString()).toBe(text);
      expect(got.reference).toMatchObject({ coding: "identity", bytes: text.length, complete: true });
    }
  });

  it.each([
    ["zstd", zstdCompressSync(text)],
    ["GZIP", gzipSync(text)],
    ["gzip, gzip", gzipSync(gzipSync(text))],
    ["x-gzip", gzipSync(text)],
    ["whatever", Buffer.from(text)],
  ])("%s passes untouched, and says so", async (coding, coded) => {
    const got = await ask(answerWith(200, { "content-encoding": coding }, coded));
    expect(got.heard?.headers["content-encoding"]).toBe(coding);
    expect(got.heard?.body.equals(coded)).toBe(true);
    expect(got.body.equals(coded)).toBe(true);
    expect(got.reference).toMatchObject({ coding, complete: true });
  });

  it("what is no gzip breaks off", async () => {
    const got = await ask(answerWith(200, { "content-encoding": "gzip" }, "not gzip at all"));
    expect(got.heard?.isWhole && got.heard.status === 200).toBe(false);
    expect(got.answer).toMatchObject({ outcome: "upstream-failed" });
  });

  const bomb = gzipSync(Buffer.alloc(200 * MIB), { level: 9 });
  it.each([
    ["declared", 43 * MIB],
    ["chunked", 66 * MIB],
  ])("a bomb is cut, %s", async (framing, bytes) => {
    const headers = { "content-encoding": "gzip" };
    const bomber = await rig.provision();
    const behaviour = framing === "declared" ? answerWith(200, headers, bomb) : inChunks([bomb], headers);
    const got = await ask(behaviour, {}, bomber);
    expect(got.heard?.isWhole).toBe(false);
    expect(got.heard?.body.length).toBeLessThan(bytes);
    expect(got.answer).toMatchObject({ outcome: "too-large", reason: "the answer is too large" });
  });
});

describe("heads", () => {
  it.each([301, 302, 307])("%d is not followed, and leads back to the gate or nowhere", async (status) => {
    const base = rig.upstream.baseUrl;
    for (const [location, expected] of [
      [`${base}/next?page=2`, `${rig.origin}/hostile/next?page=2`],
      ["/next", `${rig.origin}/hostile/next`],
      ["next", `${rig.origin}/hostile/r/next`],
      ["https://evil.test/next", undefined],
      [`${base}.evil.test/next`, undefined],
      ["//evil.test/next", undefined],
    ] as const) {
      const got = await ask(answerWith(status, { location }, ""));
      expect([got.heard?.status, got.heard?.headers.location], location).toEqual([status, expected]);
    }
    expect(rig.upstream.requests("/next")).toEqual([]);
  });

  it("links lead back to the gate, cookies and challenges stay", async () => {
    const base = rig.upstream.baseUrl;
    const got = await ask(
      answerWith(
        200,
        {
          link: [`<${base}/p?page=2>; rel="next", <https://evil.test/>; rel="last"`, `</q>; rel="first"`],
          "set-cookie": ["a=1", "b=2"],
          "www-authenticate": "Basic",
          "x-ratelimit-remaining": "7",
          etag: '"1"',
        },
        "{}",
      ),
    );
    const { link, etag, "x-ratelimit-remaining": left } = got.heard?.headers ?? {};
    expect([link, etag, left]).toEqual([
      `<${rig.origin}/hostile/p?page=2>; rel="next", <${rig.origin}/hostile/q>; rel="first"`,
      '"1"',
      "7",
    ]);
    expect(JSON.stringify(got.heard?.rawHeaders)).not.toMatch(/cookie|www-authenticate|evil/i);
    expect(JSON.stringify(got.answer)).not.toMatch(/evil/);
  });

  it.each([401, 407])("%d of the upstream is the gate's failure: withheld, and on record", async (status) => {
    const got = await ask(
      answerWith(status, { "www-authenticate": "Basic", "x-secret": "s" }, "whose credential is this?"),
    );
    expect(got.heard?.status).toBe(502);
    expect(got.heard?.face).not.toMatch(/credential|secret|Basic/);
    expect(got.body.toString()).toBe("whose credential is this?");
    expect(got.answer).toMatchObject({ outcome: "upstream-failed", status, passedBytes: 0 });
  });
});

describe("an agent that", () => {
  it("leaves in mid-stream takes the upstream's connection along", async () => {
    const gone = new AbortController();
    let goneAtMs = 0;
    const got = await ask(
      (request, answer) => {
        request.resume();
        answer.writeHead(200, { "content-type": "text/event-stream" });
        const timer = setInterval(() => answer.write("data: x\n\n"), 20);
        answer.on("close", () => clearInterval(timer));
      },
      {
        signal: gone.signal,
        onData: () => {
          if (goneAtMs > 0) return;
          goneAtMs = Date.now();
          gone.abort();
        },
      },
    );
    const seen = await rig.upstream.until(got.path, ({ isBrokenOff }) => isBrokenOff);
    expect(seen.brokenOffAtMs - goneAtMs).toBeLessThan(10_000);
    expect(got.answer).toMatchObject({ outcome: "client-gone", status: 200 });
    expect(got.body.toString()).toMatch(/^(data: x\n\n)+$/);
    expect(got.reference).toMatchObject({ complete: false });
  });

  it("leaves before the answer's head takes the upstream's connection along", async () => {
    const gone = new AbortController();
    const path = "/gone/head";
    rig.upstream.on(path, (request) => {
      request.resume();
      setTimeout(() => gone.abort(), 50);
    });
    await rig.call(who, `/hostile${path}`, { signal: gone.signal }).catch(() => {});
    await rig.upstream.until(path, ({ isBrokenOff }) => isBrokenOff);
    expect((await rig.recorded(who, `/hostile${path}`)).answer).toMatchObject({ outcome: "client-gone", status: null });
  });

  it("leaves in the middle of its upload: the upstream can't take the part for the whole", async () => {
    for (const framing of ["declared", "chunked"]) {
      const path = `/gone/upload/${framing}`;
      const gone = new AbortController();
      async function* half(): AsyncGenerator<Buffer> {
        for (let i = 0; i < 35; i++) {
          yield Buffer.alloc(100_000, "u");
          await pause(2);
        }
        await rig.upstream.until(path, ({ bytesIn }) => bytesIn >= MIB);
        gone.abort();
        await new Promise(() => {});
      }
      const headers = framing === "declared" ? { "content-length": "5000000" } : undefined;
      await rig
        .call(who, `/hostile${path}`, {
          method: "PUT",
          body: half(),
          signal: gone.signal,
          ...(headers && { headers }),
        })
        .catch(() => {});
      const seen = await rig.upstream.until(path, ({ isBrokenOff }) => isBrokenOff);
      expect(seen.isWhole).toBe(false);
      const { call, answer } = await rig.recorded(who, `/hostile${path}`);
      expect(answer).toMatchObject({ outcome: "client-gone", requestBody: { complete: false } });
      const forwarded = answer["forwardedBytes"] as number;
      const { bytes } = answer["requestBody"] as { bytes: number };
      expect(forwarded).toBeGreaterThanOrEqual(bodyOf(seen).length);
      expect(bytes).toBeGreaterThanOrEqual(forwarded);
      expect((await rig.recordedBody(who, call.seq, "request")).length).toBe(bytes);
    }
  });

  it("reads slowly slows the upstream down", async () => {
    let written = 0;
    const run = Buffer.alloc(65_536, "b");
    const path = "/slow-reader";
    rig.upstream.on(path, async (request, answer) => {
      request.resume();
      answer.writeHead(200, { "content-type": "application/octet-stream" });
      while (written < 64 * MIB && !answer.destroyed) {
        written += run.length;
        if (!answer.write(run)) await new Promise((resolve) => answer.once("drain", resolve));
      }
      answer.end();
    });
    let whilePaused = 0;
    const heard = await rig.call(who, `/hostile${path}`, {
      onHead: (answer) => {
        answer.pause();
        setTimeout(() => {
          whilePaused = written;
          answer.resume();
        }, 600);
      },
    });
    // Buffers of three sockets and two processes.
    expect(whilePaused).toBeLessThan(24 * MIB);
    expect([heard.isWhole, heard.body.length]).toEqual([true, written]);
  });
});

describe("a long request", () => {
  it("that the upstream answers before its end: the answer is the agent's", async () => {
    async function* long(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 40; i++) {
        yield Buffer.alloc(100_000);
        await pause(5);
      }
    }
    const got = await ask(
      (request, answer) => {
        // It reads on: one that closed on unread bytes would reset the connection, and its answer with it.
        request.resume();
        answer.writeHead(413, { "content-type": "application/json" }).end('{"too":"long"}');
      },
      { method: "PUT", body: long() },
    );
    // An agent that still sends may lose an answer to the reset of its own connection (RFC 9112 §9.6): the record is the witness.
    expect([413, undefined]).toContain(got.heard?.status);
    expect(got.body.toString()).toBe('{"too":"long"}');
    expect(got.answer).toMatchObject({ outcome: "complete", status: 413, requestBody: { complete: false } });
  });

  it("is broken off by a kill, for the upstream too", async () => {
    const doomed = await rig.provision();
    const path = "/kill/upload";
    async function* halted(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 45; i++) yield Buffer.alloc(100_000);
      await rig.upstream.until(path, ({ bytesIn }) => bytesIn > MIB);
      await rig.h.kill(doomed.id);
      for (let i = 0; i < 45; i++) yield Buffer.alloc(100_000);
    }
    const heard = await rig.call(doomed, `/hostile${path}`, { method: "PUT", body: halted() }).catch(() => null);
    expect(heard === null || heard.status === 401).toBe(true);
    const seen = await rig.upstream.until(path, ({ isBrokenOff }) => isBrokenOff);
    expect(seen.isWhole).toBe(false);
    const { answer } = await rig.recorded(doomed, `/hostile${path}`);
    expect(answer).toMatchObject({ outcome: "cut", cause: "switched", requestBody: { complete: false } });
    expect(answer["forwardedBytes"]).toBeGreaterThanOrEqual(seen.bytesIn);
  });

  it("whose agent leaves within the first run never leaves the gate", async () => {
    for (const headers of [{ "content-length": "900000" }, {}]) {
      const gone = new AbortController();
      async function* begun(): AsyncGenerator<Buffer> {
        for (let i = 0; i < 5; i++) yield Buffer.alloc(100_000);
        await pause(50);
        gone.abort();
        await new Promise(() => {});
      }
      const sent = { method: "PUT", body: begun(), signal: gone.signal, headers };
      await rig.call(who, "/hostile/gone/first", sent).catch(() => {});
    }
    await pause(100);
    expect(rig.upstream.requests("/gone/first")).toEqual([]);
  });

  it("to an upstream that hangs up is the upstream's failure, not the agent's", async () => {
    async function* long(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 40; i++) yield Buffer.alloc(100_000);
    }
    const got = await ask((request) => request.socket.destroy(), { method: "PUT", body: long() });
    expect(got.heard?.status).toBe(502);
    expect(got.answer).toMatchObject({ outcome: "upstream-failed" });
  });

  it("over the bound is refused: before it leaves where it says so, else in the middle", async () => {
    const declared = await rig.call(who, "/hostile/over/declared", { method: "PUT", body: Buffer.alloc(6 * MIB + 1) });
    expect(declared.status).toBe(413);
    expect(rig.upstream.requests("/over/declared")).toEqual([]);
    expect((await rig.refused(who, "/hostile/over/declared"))["decision"]).toMatchObject({ kind: "too-large" });
    async function* endless(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 90; i++) yield Buffer.alloc(100_000);
    }
    const got = await ask((request) => void request.resume(), { method: "PUT", body: endless() });
    expect(got.answer).toMatchObject({ outcome: "too-large" });
    expect(got.heard === null || got.heard.status === 413).toBe(true);
    expect((await rig.upstream.until(got.path, ({ isBrokenOff }) => isBrokenOff)).isWhole).toBe(false);
  });
});
