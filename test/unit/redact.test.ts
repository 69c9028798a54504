import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { redactionRules } from "../../src/config/redaction.ts";
import { MAX_REDACTABLE_BYTES, MAX_VALUES, redactBody, redactHeaders, redactQuery } from "../../src/gate/redact.ts";

const utf8 = new TextEncoder();
const textOf = (bytes: Uint8Array): string => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
const rules = (...source: object[]) =>
  redactionRules.parse(source.map((rule, i) => ({ name: `r${i}`, in: "both", ...rule })));
const JSON_TYPE = { mediaType: "application/json", coding: null };

const body = (text: string, ...fields: string[]) => redactBody(rules({ fields }), utf8.encode(text), JSON_TYPE);
const recorded = (text: string, ...fields: string[]): string => {
  const redacted = body(text, ...fields);
  return redacted.ok ? textOf(redacted.value.recorded) : redacted.error;
};

describe("a body", () => {
  it("keeps its spacing, its numbers and its escapes around what is taken out", () => {
    const text = '{ "n":1.50e+02,\n "p\\u0061ss" :\t"s3cret" , "é":"\\u00e9\\/" }\n';
    expect(recorded(text, "/pass")).toBe(text.replace('"s3cret"', '"[redacted:r0]"'));
  });

  it("names the first rule that means a value", () => {
    const of = redactBody(
      rules({ fields: ["/a/b"] }, { fields: ["/a/*"] }),
      utf8.encode('{"a":{"b":1,"c":2}}'),
      JSON_TYPE,
    );
    expect(of.ok && textOf(of.value.recorded)).toBe('{"a":{"b":"[redacted:r0]","c":"[redacted:r1]"}}');
  });

  it("is itself where a rule finds nothing, and needs to be nothing where it is empty", () => {
    expect(recorded('{"a":1}', "/b")).toBe('{"a":1}');
    const empty = redactBody(rules({ fields: ["/a"] }), new Uint8Array(0), { mediaType: null, coding: "gzip" });
    expect(empty).toEqual({ ok: true, value: { recorded: new Uint8Array(0), taken: [] } });
  });

  const NOT_JSON = "a body that is not declared as JSON";
  it.each([
    ["application/json", null],
    ["application/json; charset=utf-8", null],
    ['Application/JSON;charset="UTF-8"; odata=minimal', null],
    ["application/vnd.x+json", null],
    ["application/vnd.a-b.v1+c+json ;v=2", null],
    [null, NOT_JSON],
    ["", NOT_JSON],
    ["text/plain", NOT_JSON],
    ["text/json", NOT_JSON],
    ["application/x-ndjson", NOT_JSON],
    ["application/jsonl", NOT_JSON],
    ["text/event-stream", NOT_JSON],
    ["multipart/form-data; boundary=json", NOT_JSON],
    ["application/x-www-form-urlencoded", NOT_JSON],
    ["application/json; charset=utf-16", NOT_JSON],
    ["application/json; charset=utf-8; charset=utf-7", NOT_JSON],
    ["application/json, text/html", NOT_JSON],
    ["application/json; a=b, text/html", NOT_JSON],
    ["application/jsonp", NOT_JSON],
  ])("of the type %s: %s", (mediaType, error) => {
    const redacted = redactBody(rules({ fields: ["/a"] }), utf8.encode("{}"), { mediaType, coding: null });
    expect(redacted.ok ? null : redacted.error).toBe(error);
  });

  it.each([
    ["gzip", "a coded body"],
    ["identity, gzip", "a coded body"],
    ["Identity", null],
  ])("in the coding %s: %s", (coding, error) => {
    const redacted = redactBody(rules({ fields: ["/a"] }), utf8.encode("{}"), { ...JSON_TYPE, coding });
    expect(redacted.ok ? null : redacted.error).toBe(error);
  });

  it.each<[string, Uint8Array, string]>([
    ["with a byte order mark", new Uint8Array([0xef, 0xbb, 0xbf, 0x7b, 0x7d]), "the body: not JSON"],
    ["in UTF-16", new Uint8Array([0xff, 0xfe, 0x7b, 0, 0x7d, 0]), "a body that is not UTF-8"],
    ["in UTF-16 without a mark", new Uint8Array([0x7b, 0, 0x7d, 0]), "the body: not JSON"],
    ["with an overlong byte", new Uint8Array([0x22, 0xc1, 0xa1, 0x22]), "a body that is not UTF-8"],
    ["that names a key twice", utf8.encode('{"a":1,"\\u0061":2}'), "the body: duplicate key"],
    ["of two texts", utf8.encode("{}\n{}"), "the body: not JSON"],
    ["nested too deep", utf8.encode("[".repeat(65) + "]".repeat(65)), "the body: nested deeper than 64"],
    [
      "with too many values",
      utf8.encode(JSON.stringify(Array(MAX_VALUES + 1).fill(1))),
      "the body: more than 1000 values",
    ],
    [
      "one byte too long",
      utf8.encode(JSON.stringify("x".repeat(MAX_REDACTABLE_BYTES - 1))),
      "a body too long to be redacted",
    ],
  ])("%s is refused", (_, bytes, error) => {
    expect(redactBody(rules({ fields: ["/0", "/*"] }), bytes, JSON_TYPE)).toEqual({ ok: false, error });
  });

  it("that its markers make too long is refused", () => {
    const text = JSON.stringify({ a: 1, b: "" });
    const filled = (bytes: number) => text.replace('""', `"${"x".repeat(bytes - text.length)}"`);
    const grown = '"[redacted:r0]"'.length - 1;
    expect(body(filled(MAX_REDACTABLE_BYTES - grown), "/a").ok).toBe(true);
    expect(body(filled(MAX_REDACTABLE_BYTES - grown + 1), "/a")).toEqual({
      ok: false,
      error: "a body too long to be redacted",
    });
  });

  it("outside of what was taken out is byte for byte itself, and holds no taken value", () => {
    let secrets = 0;
    const secret = fc.string({ unit: "binary" }).map((noise) => ({ pin: `SECRET-${secrets++}-${noise}` }));
    const tree = fc.letrec((tie) => ({
      any: fc.oneof({ maxDepth: 4 }, fc.jsonValue({ maxDepth: 1 }), secret, tie("list"), tie("object")),
      list: fc.array(tie("any"), { maxLength: 3 }),
      object: fc.dictionary(fc.constantFrom("a", "b", "c"), tie("any"), { maxKeys: 3 }),
    }));
    // Every place where a secret can be: `pin` below any way through members and elements.
    const fields = Array.from({ length: 8 }, (_, depth) => `${"/*".repeat(depth)}/pin`);
    fc.assert(
      fc.property(tree.any, fc.constantFrom(undefined, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        fc.pre(text.isWellFormed());
        const bytes = utf8.encode(text);
        const redacted = body(text, ...fields);
        if (!redacted.ok) throw new Error(redacted.error);
        const marker = utf8.encode('"[redacted:r0]"');
        const out = redacted.value.recorded;
        // Walks both: what is not a marker is the same byte, and each marker stands for the next value taken.
        let at = 0;
        let from = 0;
        for (const { value: taken } of redacted.value.taken) {
          let cut = from;
          while (!startsAt(bytes, taken, cut) || !startsAt(out, marker, at + cut - from)) {
            expect([cut < bytes.length, out[at + cut - from]]).toEqual([true, bytes[cut]]);
            cut++;
          }
          at += cut - from + marker.length;
          from = cut + taken.length;
        }
        expect(out.subarray(at)).toEqual(bytes.subarray(from));
        expect(textOf(out)).not.toContain("SECRET-");
      }),
      { numRuns: 300 },
    );
  });
});

const startsAt = (bytes: Uint8Array, part: Uint8Array, at: number): boolean =>
  part.every((byte, i) => bytes[at + i] === byte);

describe("headers", () => {
  it("named by a rule of their direction are replaced, others are not touched", () => {
    const list = [
      ["x-key", "s"],
      ["accept", "a"],
      ["x-both", "t"],
    ] as const;
    const of = rules({ in: "request", headers: ["X-Key"] }, { in: "both", headers: ["x-both"] });
    expect(redactHeaders(of, list, "request").recorded).toEqual([
      ["x-key", "[redacted:r0]"],
      ["accept", "a"],
      ["x-both", "[redacted:r1]"],
    ]);
    const answer = redactHeaders(of, list, "answer");
    expect(answer.recorded).toEqual([
      ["x-key", "s"],
      ["accept", "a"],
      ["x-both", "[redacted:r1]"],
    ]);
    expect(answer.taken.map(({ at, value }) => [at, textOf(value)])).toEqual([["header:x-both", "t"]]);
  });

  it("that digest a body are replaced along with its fields, for they confirm a guess", () => {
    const list = [
      ["content-md5", "x"],
      ["etag", "y"],
      ["repr-digest", "z"],
    ] as const;
    const of = rules({ in: "answer", fields: ["/a"] });
    expect(redactHeaders(of, list, "request").recorded).toEqual(list);
    expect(redactHeaders(of, list, "answer").recorded).toEqual([
      ["content-md5", "[redacted:r0]"],
      ["etag", "y"],
      ["repr-digest", "[redacted:r0]"],
    ]);
  });

  it("with URLs lose the parameters of a query", () => {
    const of = rules({ in: "request", query: ["token"] });
    const list = [
      ["location", "https://x.test/a?token=s1&b=2#f"],
      ["link", '<https://x.test/?page=2&token=s2>; rel="next", </?token=s3>; rel=last'],
      ["x-other", "?token=s4"],
    ] as const;
    const { recorded, taken } = redactHeaders(of, list, "answer");
    expect(recorded).toEqual([
      ["location", "https://x.test/a?token=[redacted:r0]&b=2#f"],
      ["link", '<https://x.test/?page=2&token=[redacted:r0]>; rel="next", </?token=[redacted:r0]>; rel=last'],
      ["x-other", "?token=s4"],
    ]);
    expect(taken.map(({ at, value }) => `${at} ${textOf(value)}`)).toEqual([
      "header:location?token s1",
      "header:link?token s2",
      "header:link?token s3",
    ]);
  });
});

describe("a query", () => {
  const of = (text: string, ...query: string[]): string => redactQuery(rules({ query }), text).recorded;
  const R = "[redacted:r0]";
  it.each([
    ["/a?token=s&b=1", `/a?token=${R}&b=1`],
    ["/a?b=1&token=s", `/a?b=1&token=${R}`],
    ["/a?token=s1&token=s2", `/a?token=${R}&token=${R}`],
    ["/a?%74oken=s", `/a?%74oken=${R}`],
    ["/a?TOKEN=s", `/a?TOKEN=${R}`],
    ["/a?token[]=s&token[x][y]=t", `/a?token[]=${R}&token[x][y]=${R}`],
    ["/a?token%5B%5D=s", `/a?token%5B%5D=${R}`],
    [`/a?token=s"<>;'x&b=1`, `/a?token=${R}&b=1`],
    ["/a?b=1;token=s;c=2", `/a?b=1;token=${R}`],
    ["/a?token=a=b?c", `/a?token=${R}`],
    ["/a?next=https://x.test/?token=s", `/a?next=https://x.test/?token=${R}`],
    ["/a?x&token=s", `/a?x&token=${R}`],
    ["/a??token=s", `/a??token=${R}`],
    ["/a?=&token=s", `/a?=&token=${R}`],
    ["/a?token=", `/a?token=${R}`],
    ["/a?token", "/a?token"],
    ["/a?tokens=s&my_token=s", "/a?tokens=s&my_token=s"],
    ["/token=s", "/token=s"],
  ])("%s", (text, expected) => expect(of(text, "token")).toBe(expected));

  it.each([
    "access_token",
    "accessToken",
    "access.token",
    "access%20token",
    "access+token[]",
  ])("%s, which some framework reads as the named one", (name) =>
    expect(of(`/a?${name}=s&b=1`, "access_token")).toBe(`/a?${name}=${R}&b=1`));

  it("may have a name with brackets or beyond ASCII", () => {
    expect(of("/a?filter[pin]=1&filter[x]=2&filter%5bpin%5d[]=3", "filter[pin]")).toBe(
      `/a?filter[pin]=${R}&filter[x]=2&filter%5bpin%5d[]=${R}`,
    );
    expect(of("/a?schl%C3%BCssel=1", "schlüssel")).toBe(`/a?schl%C3%BCssel=${R}`);
  });

  it("of very many parameters is cut as one value from the last that is counted", () => {
    const { recorded, taken } = redactQuery(rules({ query: ["t"] }), `/a?${"t=s&".repeat(10_000)}`);
    expect(taken).toHaveLength(64);
    expect(recorded).not.toContain("=s");
  });
});
