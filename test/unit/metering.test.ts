import { describe, expect, it } from "vitest";
import { upstream } from "../../src/config/upstream.ts";
import { add, millionthsUp, priceOf } from "../../src/metering/amounts.ts";
import { chargeOf, chargesOf, meteredOf, reserveOf } from "../../src/metering/charge.ts";
import { AnswerReader, EVENT_MAX_CHARS, formOf, READ_MAX_BYTES } from "../../src/metering/read-answer.ts";

const base = { baseUrl: "https://a.example", credential: { kind: "header", header: "X-Key", secret: "KEY" } } as const;
/** As for Anthropic's messages: each of its events says a part. */
const anthropic = upstream.parse({
  ...base,
  meters: {
    "input-tokens": {
      pointer: ["/usage/input_tokens", "/message/usage/input_tokens"],
      reserve: 1_000,
      operations: ["POST /v1/messages"],
    },
    "output-tokens": {
      pointer: ["/usage/output_tokens", "/message/usage/output_tokens"],
      reserve: 100,
      operations: ["POST /v1/messages"],
    },
  },
  prices: { usd: { of: { "input-tokens": 0.000003, "output-tokens": 0.000015 } } },
});
const call = { method: "POST", segments: ["v1", "messages"] };
const metered = meteredOf(anthropic, call)!;

/** Room for so many bytes, and how much of it is taken. */
const roomOf = (bytes: number) => {
  const room = {
    taken: 0,
    most: 0,
    take: (wanted: number) => {
      if (room.taken + wanted > bytes) return false;
      room.taken += wanted;
      room.most = Math.max(room.most, room.taken);
      return true;
    },
    give: (given: number) => {
      room.taken -= given;
    },
  };
  return room;
};
const AMPLE = roomOf(Number.POSITIVE_INFINITY);

const read = (type: string, ...runs: (string | Uint8Array)[]) => {
  const reader = new AnswerReader(metered, formOf(type)!, AMPLE);
  for (const run of runs) reader.take(typeof run === "string" ? new TextEncoder().encode(run) : run);
  return Object.fromEntries(reader.end().amounts);
};
const event = (data: object) => `event: x\r\ndata: ${JSON.stringify(data)}\r\n\r\n`;
const SSE = "text/event-stream; charset=utf-8";
const START = event({ type: "message_start", message: { usage: { input_tokens: 25, output_tokens: 1 } } });
const DELTA = event({ type: "message_delta", usage: { output_tokens: 15 } });

describe("what concerns a call", () => {
  it("is nothing where no operation of a meter is it", () => {
    expect(meteredOf(anthropic, { method: "GET", segments: ["v1", "models"] })).toBeNull();
    expect(meteredOf(upstream.parse(base), call)).toBeNull();
  });
  it.each([
    ["another case", ["V1", "Messages"]],
    ["a slash at its end", ["v1", "messages", ""]],
    ["an encoded slash", ["v1/messages"]],
    ["a parameter of a segment", ["v1;x=1", "messages"]],
  ])("is no less by %s: some upstream takes it for the same", (_how, segments) => {
    expect(meteredOf(anthropic, { method: "POST", segments })).toEqual(metered);
  });
  it("reserves units, and money of them", () => {
    expect(reserveOf(metered)).toEqual({ "input-tokens": 1_000, "output-tokens": 100, usd: 0.0045 });
  });
});

describe("money", () => {
  it("is exact, and rounded up to a millionth once", () => {
    expect(priceOf([{ amount: 1, price: 0.00000015 }])).toBe(0.000001);
    expect(priceOf([{ amount: 20, price: 0.00000015 }])).toBe(0.000003);
    expect(
      priceOf([
        { amount: 20, price: 0.00000015 },
        { amount: 1, price: 0.000000000001 },
      ]),
    ).toBe(0.000004);
    expect(priceOf([{ amount: 9_000_000_000, price: 0.000003 }])).toBe(27_000);
  });
  it("does not drift", () => {
    let sum = 0;
    for (let i = 0; i < 100_000; i++) sum = add(sum, 0.000_001);
    expect(sum).toBe(0.1);
    expect([millionthsUp(0.1), millionthsUp(0.0000011)]).toEqual([100_000, 2]);
  });
});

describe("an answer", () => {
  it("of JSON, in runs that part a character", () => {
    const bytes = new TextEncoder().encode(
      JSON.stringify({ text: "ä".repeat(50), usage: { input_tokens: 3, output_tokens: 4 } }),
    );
    const runs = [...bytes].map((byte) => new Uint8Array([byte]));
    expect(read("application/json", ...runs)).toEqual({ "input-tokens": 3, "output-tokens": 4 });
  });
  it("of events: the last that says each", () => {
    expect(read(SSE, START, event({ type: "ping" }), DELTA)).toEqual({ "input-tokens": 25, "output-tokens": 15 });
    expect(read(SSE, ...`${START}${DELTA}`)).toEqual({ "input-tokens": 25, "output-tokens": 15 });
    expect(read(SSE, START, DELTA.trimEnd())).toEqual({ "input-tokens": 25, "output-tokens": 15 });
  });
  it("of an event whose data are several lines", () => {
    expect(read(SSE, 'data: {"usage":\ndata: {"output_tokens":7}}\n\n')).toEqual({ "output-tokens": 7 });
  });
  it("of JSON lines", () => {
    const line = (n: number) => `${JSON.stringify({ usage: { output_tokens: n } })}\n`;
    expect(read("application/x-ndjson", line(1), line(2))).toEqual({ "output-tokens": 2 });
  });
  for (const [what, text] of [
    ["no JSON", "input_tokens"],
    ["a text", '{"usage":{"input_tokens":"3"}}'],
    ["below nothing", '{"usage":{"input_tokens":-3}}'],
    ["beyond what counts", '{"usage":{"input_tokens":1e18}}'],
    ["an inherited name", '{"usage":[]}'],
  ] as const)
    it(`that says ${what} says nothing`, () => expect(read("application/json", text)).toEqual({}));
  it("that is longer than what is read says nothing, and keeps no memory", () => {
    const said = '{"usage":{"input_tokens":3},"text":"';
    const fits = `${said}${"x".repeat(READ_MAX_BYTES - said.length - 2)}"}`;
    expect(read("application/json", fits)).toEqual({ "input-tokens": 3 });
    expect(read("application/json", `${fits} `)).toEqual({});
  });
  it("that comes byte by byte takes no more room than twice its length, and gives it back", () => {
    const room = roomOf(READ_MAX_BYTES);
    const bytes = new TextEncoder().encode(`{"text":"${"x".repeat(50_000)}","usage":{"input_tokens":3}}`);
    const reader = new AnswerReader(metered, "json", room);
    for (const byte of bytes) reader.take(new Uint8Array([byte]));
    expect(room.most).toBeLessThan(2 * bytes.length);
    expect(room.taken).toBe(room.most);
    expect(Object.fromEntries(reader.end().amounts)).toEqual({ "input-tokens": 3 });
    expect(room.taken).toBe(0);
  });
  it("for which there is no room says nothing", () => {
    const room = roomOf(10_000);
    const reader = new AnswerReader(metered, "json", room);
    reader.take(new TextEncoder().encode(`{"usage":{"input_tokens":3},"text":"`));
    reader.take(new TextEncoder().encode(`${"x".repeat(9_000)}`));
    expect(room.taken).toBeGreaterThan(0);
    reader.take(new TextEncoder().encode(`${"x".repeat(9_000)}"}`));
    expect(room.taken).toBe(0);
    expect(reader.end().amounts.size).toBe(0);
  });
  it("that was cut gives its room back", () => {
    const room = roomOf(10_000);
    const reader = new AnswerReader(metered, "json", room);
    reader.take(new Uint8Array(10));
    reader.close();
    reader.close();
    expect(room.taken).toBe(0);
  });
  it("is read by its places alone, where the pointer has no names", () => {
    const places = meteredOf(upstream.parse({ ...base, meters: { units: { pointer: "/0/1", reserve: 9 } } }), call)!;
    const reader = new AnswerReader(places, "json", AMPLE);
    reader.take(new TextEncoder().encode("[[7,8]]"));
    expect(reader.end().amounts.get("units")).toBe(8);
  });
  it("with an event that is longer says nothing: it may have been the last", () => {
    expect(read(SSE, START, `data: ${"x".repeat(EVENT_MAX_CHARS)}`, "\n\n", DELTA)).toEqual({});
  });
  it("in a form that nobody reads is none", () => {
    expect([formOf("text/html"), formOf(null), formOf("application/problem+json")]).toEqual([null, null, "json"]);
  });
});

describe("a charge", () => {
  const reading = (amounts: Record<string, number>) => ({
    amounts: new Map(Object.entries(amounts)),
    chosenBy: new Map(),
  });
  it("of money is known where all of its parts are", () => {
    expect(chargeOf(metered, reading({ "input-tokens": 25, "output-tokens": 15 }), 200)).toEqual({
      "input-tokens": 25,
      "output-tokens": 15,
      usd: 0.0003,
    });
    expect(chargeOf(metered, reading({ "input-tokens": 25 }), 200)).toEqual({ "input-tokens": 25 });
  });
  it("is the reserve where nobody says it, for each unit by itself", () => {
    expect(chargesOf({ a: 5, b: 7 }, { a: 1, c: 9 })).toEqual({
      a: { charged: 1, by: "answer" },
      b: { charged: 7, by: "reserve" },
    });
    expect(chargesOf({ a: 5 }, null)).toEqual({ a: { charged: 5, by: "reserve" } });
  });
  it("of a failure is what the configuration says, where it says it", () => {
    const free = upstream.parse({
      ...base,
      meters: { tokens: { pointer: "/t", reserve: 9, failed: 0 }, rest: { pointer: "/r", reserve: 1 } },
    });
    const both = meteredOf(free, call)!;
    expect(chargeOf(both, reading({}), 429)).toEqual({ tokens: 0 });
    expect(chargeOf(both, reading({}), 200)).toEqual({});
  });
});
