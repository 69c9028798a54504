import { afterEach, describe, expect, it, vi } from "vitest";
import { FIRST_RUN_BYTES, readNextRun, readRequestBody } from "../../src/gate/request-body.ts";

afterEach(() => {
  vi.useRealTimers();
});

const request = (body: BodyInit | null, headers: Record<string, string> = {}): Request =>
  new Request("https://gate.test/", { method: "POST", body, headers });

describe("readRequestBody", () => {
  it("of nothing is nothing", async () => {
    expect(await readRequestBody(request(null))).toEqual({ first: new Uint8Array(0), rest: null });
  });

  it.each([0, 1, 16_383, 16_384, 16_385, FIRST_RUN_BYTES])("%d bytes come whole", async (bytes) => {
    const body = new Uint8Array(bytes).fill(7);
    for (const headers of [{}, { "content-length": String(bytes) }]) {
      const read = await readRequestBody(request(body, headers));
      expect([read?.first.byteLength, read?.rest]).toEqual([bytes, null]);
      expect(read?.first.every((byte) => byte === 7)).toBe(true);
    }
  });

  it("one byte more follows", async () => {
    const read = await readRequestBody(request(new Uint8Array(FIRST_RUN_BYTES + 2)));
    expect(read?.first.byteLength).toBe(FIRST_RUN_BYTES + 1);
    const rest = read?.rest as ReadableStreamBYOBReader;
    expect((await readNextRun(rest))?.byteLength).toBe(1);
    expect(await readNextRun(rest)).toBeNull();
  });

  it("a declared length that is none, or a lie, changes nothing", async () => {
    for (const length of ["", "-1", "x", "1e9", "0", "5"]) {
      const read = await readRequestBody(request(new Uint8Array(100), { "content-length": length }));
      expect(read?.first.byteLength, length).toBe(100);
    }
  });

  it("what breaks off is no body", async () => {
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    void writer.write(new Uint8Array(10)).catch(() => {});
    const reading = readRequestBody(request(readable));
    await new Promise((resolve) => setTimeout(resolve, 10));
    void writer.abort("gone").catch(() => {});
    expect(await reading).toBeUndefined();
  });

  it("what does not come in time is no body: never the part for the whole", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    void writer.write(new Uint8Array(10)).catch(() => {});
    const reading = readRequestBody(request(readable));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await reading).toBeUndefined();
  });
});
