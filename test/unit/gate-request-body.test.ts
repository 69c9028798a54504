import { afterEach, describe, expect, it, vi } from "vitest";
import { FIRST_RUN_BYTES } from "../../src/gate/first-run.ts";
import { MAX_BUFFERED_BYTES, readNextRun, readRequestBody } from "../../src/gate/request-body.ts";

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const streamOf = (bytes: Uint8Array): ReadableStream => new Response(bytes).body as ReadableStream;
const read = async (bytes: Uint8Array, declaredBytes: number | null = null) => {
  const body = await readRequestBody(streamOf(bytes), declaredBytes);
  return body.ok ? body.value : undefined;
};
const NOT_ARRIVED = { ok: false, error: "the request's body did not arrive" };
const NO_ROOM = { ok: false, error: "too many requests' bodies are being read" };

/** A body whose sender has sent this much and waits. */
function halted(bytes: number) {
  const { readable, writable } = new IdentityTransformStream();
  const writer = writable.getWriter();
  const sent = bytes === 0 ? Promise.resolve() : writer.write(new Uint8Array(bytes)).catch(() => {});
  return { readable, sent, abort: () => void writer.abort("gone").catch(() => {}) };
}

describe("readRequestBody", () => {
  it("of nothing is nothing", async () => {
    expect(await read(new Uint8Array(0), 0)).toEqual({ first: new Uint8Array(0), rest: null });
  });

  it.each([
    0,
    1,
    16_382,
    16_383,
    16_384,
    16_385,
    32_767,
    32_768,
    500_000,
    524_288,
    FIRST_RUN_BYTES - 1,
    FIRST_RUN_BYTES,
  ])("%d bytes come whole", async (bytes) => {
    const body = new Uint8Array(bytes).map((_, i) => i % 251);
    for (const declared of [null, bytes]) {
      const got = await read(body, declared);
      expect([got?.first.byteLength, got?.rest]).toEqual([bytes, null]);
      expect(got?.first.every((byte, i) => byte === i % 251)).toBe(true);
    }
  });

  it("one byte more follows", async () => {
    for (const declared of [null, FIRST_RUN_BYTES + 2]) {
      const got = await read(new Uint8Array(FIRST_RUN_BYTES + 2), declared);
      expect(got?.first.byteLength).toBe(FIRST_RUN_BYTES + 1);
      const rest = got?.rest as ReadableStreamBYOBReader;
      expect((await readNextRun(rest))?.byteLength).toBe(1);
      expect(await readNextRun(rest)).toBeNull();
    }
  });

  it("a declared length that is a lie changes nothing", async () => {
    for (const bytes of [100, 20_000, 100_000])
      for (const declared of [0, 5, 16_384, 1_000_000_000])
        expect((await read(new Uint8Array(bytes), declared))?.first.byteLength, `${bytes} ${declared}`).toBe(bytes);
  });

  it.each<[arrived: number, mostBytes: number]>([
    [0, 16_384],
    [16_384, 32_768],
    [100_000, 131_072],
  ])("after %d bytes holds no more than twice, whatever length is declared", async (arrived, mostBytes) => {
    const made: number[] = [];
    class Counted extends ArrayBuffer {
      constructor(bytes: number) {
        super(bytes);
        made.push(bytes);
      }
    }
    vi.stubGlobal("ArrayBuffer", Counted);
    const sender = halted(arrived);
    const reading = readRequestBody(sender.readable, FIRST_RUN_BYTES);
    await sender.sent;
    await new Promise((resolve) => setTimeout(resolve, 10));
    vi.unstubAllGlobals();
    expect(Math.max(...made)).toBeLessThanOrEqual(mostBytes);
    sender.abort();
    expect(await reading).toEqual(NOT_ARRIVED);
  });

  it("what breaks off is no body", async () => {
    const sender = halted(10);
    const reading = readRequestBody(sender.readable, null);
    await new Promise((resolve) => setTimeout(resolve, 10));
    sender.abort();
    expect(await reading).toEqual(NOT_ARRIVED);
  });

  it("what does not come in time is no body: never the part for the whole", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const sender = halted(10);
    const reading = readRequestBody(sender.readable, null);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await reading).toEqual(NOT_ARRIVED);
  });

  it("all first runs together stay below the bound; one past it is refused, and room is given back", async () => {
    const fits = Math.floor(MAX_BUFFERED_BYTES / (FIRST_RUN_BYTES + 1));
    const senders = Array.from({ length: fits }, () => halted(600_000));
    const readings = senders.map(({ readable }) => readRequestBody(readable, null));
    await Promise.all(senders.map(({ sent }) => sent));
    await new Promise((resolve) => setTimeout(resolve, 10));
    // A short one may still begin; one that grows may not, nor one that begins where nothing is left.
    expect((await read(new Uint8Array(100), 100))?.first.byteLength).toBe(100);
    expect(await readRequestBody(streamOf(new Uint8Array(FIRST_RUN_BYTES)), null)).toEqual(NO_ROOM);
    const left = MAX_BUFFERED_BYTES - fits * (FIRST_RUN_BYTES + 1);
    const small = Array.from({ length: Math.floor(left / 16_384) }, () => halted(0));
    const waiting = small.map(({ readable }) => readRequestBody(readable, null));
    expect(await readRequestBody(streamOf(new Uint8Array(1)), null)).toEqual(NO_ROOM);
    for (const { abort } of [...senders, ...small]) abort();
    expect(await Promise.all([...readings, ...waiting])).toEqual([...readings, ...waiting].map(() => NOT_ARRIVED));
    const again = Array.from({ length: fits }, () => read(new Uint8Array(FIRST_RUN_BYTES)));
    expect((await Promise.all(again)).every((body) => body?.first.byteLength === FIRST_RUN_BYTES)).toBe(true);
  });
});
