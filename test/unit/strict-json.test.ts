import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_JSON_DEPTH, parseStrictJson, parseStrictJsonBytes } from "../../src/json/strict-json.ts";

const parse = (text: string) => parseStrictJson(text);

describe("parseStrictJson", () => {
  it("refuses nothing at all", () => {
    expect(parse("")).toEqual({ ok: false, error: "not JSON" });
    expect(parseStrictJsonBytes(new Uint8Array())).toEqual({ ok: false, error: "not JSON" });
  });

  it.each([
    ["not the grammar", "{a:1}", "not JSON"],
    ["a trailing comma", "[1,]", "not JSON"],
    ["two texts", "{}{}", "not JSON"],
    ["NaN", "NaN", "not JSON"],
    ["a leading zero", "01", "not JSON"],
    ["a byte order mark", "\uFEFF{}", "not JSON"],
    ["a control character in a string", '"a\nb"', "not JSON"],
    ["a key twice", '{"a":1,"a":1}', "duplicate key at offset 7"],
    ["a key twice, once escaped", '{"a":1,"\\u0061":2}', "duplicate key at offset 7"],
    ["a key twice, each escaped in its way", '{"\\/":1,"\\u002f":2}', "duplicate key at offset 8"],
    ["the empty key twice", '{"":1,"":2}', "duplicate key at offset 6"],
    ["a key twice, with space before the colon", '{"a" :1, "a"\n\t: 2}', "duplicate key at offset 9"],
    ["a key twice around a nested object", '{"a":{"a":1},"a":2}', "duplicate key at offset 13"],
    ["a key twice, after backslashes and quotes", '{"\\\\":"\\\\\\"","\\u005c":1}', "duplicate key at offset 13"],
    ["a key twice deep down", '[{"x":[{"k":0,"l":1,"k":2}]}]', "duplicate key at offset 20"],
    ["constructor twice", '{"constructor":1,"constructor":2}', "duplicate key at offset 17"],
    ["__proto__", '{"__proto__":{}}', "forbidden key at offset 1"],
    ["__proto__, escaped", '{"\\u005f_proto__":{}}', "forbidden key at offset 1"],
    ["__proto__ in an array", '[{"a":{"__proto__":1}}]', "forbidden key at offset 7"],
    ["a lone high surrogate, raw", '"\uD83D"', "a string is not Unicode"],
    ["a lone low surrogate, raw, in a key", '{"\uDE00":1}', "a string is not Unicode"],
    ["a lone high surrogate, escaped", '["\\ud83d"]', "a string is not Unicode at offset 1"],
    ["a lone low surrogate, escaped, in a key", '{"\\ude00":1}', "a string is not Unicode at offset 1"],
    ["a pair the wrong way round", '"\\ude00\\ud83d"', "a string is not Unicode at offset 0"],
    ["half a pair raw, half escaped", '"\uD83D\\ude00"', "a string is not Unicode"],
    ["an infinite number", "1e400", "number out of range at offset 0"],
    ["an infinite number below zero", '{"a":-1e400}', "number out of range at offset 5"],
    ["an integer of two readings", "9007199254740993", "number out of range at offset 0"],
    ["its neighbour, which shares the double", "[1, 9007199254740992]", "number out of range at offset 4"],
    ["the same below zero", "-9007199254740993", "number out of range at offset 0"],
    ["the same with a fraction", "9007199254740993.0", "number out of range at offset 0"],
    ["the same with an exponent", "9007199254740993e0", "number out of range at offset 0"],
  ])("refuses %s", (_, text, error) => {
    expect(parse(text)).toEqual({ ok: false, error });
  });

  it.each([
    ["null"],
    ["true"],
    ["-0"],
    ["9007199254740991"],
    ["-9007199254740991"],
    ["0.1"],
    ["1e-400"],
    ["1E+2"],
    ['"\\ud83d\\ude00"'],
    ['"😀 \\" \\\\ \\n"'],
    ['{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}'],
    ['{"a":"a","b":"a"}'],
    ['["a","a"]'],
    ['{"a":":","b":":"}'],
    ['{"a":"\\"a\\":1","b":"{\\"a\\":1}"}'],
    ['{"A":1,"a":2}'],
    ['{"constructor":1,"toString":2}'],
    ['"__proto__"'],
    [' \t\r\n{ "a" : [ ] } \n'],
  ])("reads %s as JSON.parse does", (text) => {
    expect(parse(text)).toStrictEqual({ ok: true, value: JSON.parse(text) });
  });

  it("holds the depth, and is refused one past it", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
    const error = `nested deeper than ${MAX_JSON_DEPTH}`;
    expect(parse(nested(MAX_JSON_DEPTH)).ok).toBe(true);
    expect(parse(nested(MAX_JSON_DEPTH + 1))).toEqual({ ok: false, error });
    expect(parse(objects(MAX_JSON_DEPTH)).ok).toBe(true);
    expect(parse(objects(MAX_JSON_DEPTH + 1))).toEqual({ ok: false, error });
    expect(parse(nested(100_000))).toEqual({ ok: false, error });
    expect(parse(`[${"[],".repeat(1000)}[]]`).ok).toBe(true);
    expect(parseStrictJson("1", { maxDepth: 0 }).ok).toBe(true);
    expect(parseStrictJson("[]", { maxDepth: 0 })).toEqual({ ok: false, error: "nested deeper than 0" });
  });

  it("reads whatever JSON.stringify writes, but for what it refuses by name", () => {
    const isStrict = (text: string) => !/"__proto__"\s*:/.test(text) && text.isWellFormed();
    fc.assert(
      fc.property(fc.json(), (text) => {
        fc.pre(isStrict(text) && !/\\u[dD][89a-fA-F]/.test(text));
        const result = parse(text);
        const isOutOfRange = !result.ok && result.error.startsWith("number out of range");
        if (!isOutOfRange) expect(result).toStrictEqual({ ok: true, value: JSON.parse(text) });
      }),
    );
  });

  it("finds a duplicate wherever it hides", () => {
    const key = fc.string({ unit: "binary", maxLength: 5 }).filter((name) => name !== "__proto__");
    const escapeAll = (name: string) =>
      `"${Array.from({ length: name.length }, (_, i) => `\\u${name.charCodeAt(i).toString(16).padStart(4, "0")}`).join("")}"`;
    fc.assert(
      fc.property(fc.uniqueArray(key, { minLength: 1, maxLength: 6 }), fc.nat(), fc.boolean(), (keys, pick, nest) => {
        const members = keys.map((name) => `${JSON.stringify(name)}:${nest ? `{${escapeAll(name)}:1}` : "[1]"}`);
        expect(parse(`{${members.join(",")}}`).ok).toBe(true);
        const again = `${escapeAll(keys[pick % keys.length]!)} : null`;
        const result = parse(`{${[...members, again].join(",")}}`);
        expect(result.ok ? "" : result.error).toMatch(/^duplicate key/);
      }),
    );
  });

  it("takes time in proportion to the text", () => {
    const timeOf = (members: number) => {
      const text = `{${Array.from({ length: members }, (_, i) => `"key\\u0020${i}": ["\\\\", 1.5]`).join(", ")}}`;
      const from = performance.now();
      expect(parse(text).ok).toBe(true);
      return performance.now() - from;
    };
    timeOf(1000);
    // A quadratic scan of 100,000 members takes minutes; this takes about a tenth of a second.
    expect(timeOf(100_000)).toBeLessThan(5000);
  });
});

describe("parseStrictJsonBytes", () => {
  it.each([
    ["a byte order mark", [0xef, 0xbb, 0xbf, 0x7b, 0x7d], "not JSON"],
    ["an overlong slash", [0x22, 0xc0, 0xaf, 0x22], "not UTF-8"],
    ["a surrogate as UTF-8", [0x22, 0xed, 0xa0, 0x80, 0x22], "not UTF-8"],
    ["a sequence cut short", [0x22, 0xe2, 0x82, 0x22], "not UTF-8"],
    ["Latin-1", [0x22, 0xe9, 0x22], "not UTF-8"],
    ["UTF-16", [0xff, 0xfe, 0x7b, 0x00, 0x7d, 0x00], "not UTF-8"],
    ["a zero byte", [0x7b, 0x7d, 0x00], "not JSON"],
  ])("refuses %s", (_, bytes, error) => {
    expect(parseStrictJsonBytes(Uint8Array.from(bytes))).toEqual({ ok: false, error });
  });

  it("reads UTF-8, and passes its bounds on", () => {
    const bytes = new TextEncoder().encode('{"é":["😀"]}');
    expect(parseStrictJsonBytes(bytes)).toEqual({ ok: true, value: { é: ["😀"] } });
    expect(parseStrictJsonBytes(bytes, { maxDepth: 1 })).toEqual({ ok: false, error: "nested deeper than 1" });
  });
});
