import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { findValues } from "../../src/json/find-values.ts";
import { MAX_JSON_DEPTH } from "../../src/json/strict-json.ts";

const pattern = (pointer: string) => ({
  tokens: pointer
    .split("/")
    .slice(1)
    .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~")),
});
/** What is found: where, and its source. */
function find(text: string, ...pointers: string[]): string[] | string {
  const found = findValues(text, pointers.map(pattern), 1_000);
  return found.ok ? found.value.map(({ at, start, end }) => `${at} ${text.slice(start, end)}`) : found.error;
}

describe("findValues", () => {
  it("finds nothing without a pattern", () => expect(find('{"a":1}')).toEqual([]));

  it.each<[string, string, string[], string[]]>([
    ["a member", '{"a":1,"b":2}', ["/b"], ["/b 2"]],
    ["the whole", " [1 , 2] ", [""], [" [1 , 2]"]],
    ["a scalar as the whole", '"x"', [""], [' "x"']],
    ["an element", "[10,[20,30]]", ["/1/0"], ["/1/0 20"]],
    ["nothing beyond the end", "[1]", ["/1", "/-", "/00"], []],
    ["a name that is escaped", '{"p\\u0061ssword":"s"}', ["/password"], ['/password "s"']],
    ["a name in another case", '{"PassWord":"s"}', ["/password"], ['/password "s"']],
    ["names that differ in case, all of them", '{"Pin":1,"pin":2}', ["/pin"], ["/pin 1", "/pin 2"]],
    ["the other name of a field, in Protocol Buffers' JSON", '{"card_number":1}', ["/cardNumber"], ["/cardNumber 1"]],
    ["the Kelvin sign for a k", '{"to\u212aen":1}', ["/token"], ["/token 1"]],
    ["~0 and ~1", '{"a/b":{"c~d":1}}', ["/a~1b/c~0d"], ["/a~1b/c~0d 1"]],
    ["~01, which is ~1 and no slash", '{"~1":1,"/":2}', ["/~01"], ["/~01 1"]],
    ["the empty name", '{"":{"":1}}', ["//"], ["// 1"]],
    ["a number for a name", '{"0":{"x":1}}', ["/0/x"], ["/0/x 1"]],
    ["every element", '[{"x":1},{"y":2},{"x":3}]', ["/*/x"], ["/0/x 1", "/2/x 3"]],
    ["every member, without its name", '{"secret name":{"x":1}}', ["/*/x"], ["/*/x 1"]],
    ["a name in each element of an array", '[{"x":1},[{"x":2}]]', ["/x"], ["/0/x 1", "/1/0/x 2"]],
    ["a name in arrays on the way", '{"a":[{"b":[{"c":1},{"c":2}]}]}', ["/a/b/c"], ["/a/0/b/0/c 1", "/a/0/b/1/c 2"]],
    ["the outer of two", '{"a":{"b":1,"c":2}}', ["/a/b", "/a"], ['/a {"b":1,"c":2}']],
    ["several, in the order of the text", '{"b":1,"a":2}', ["/a", "/b"], ["/b 1", "/a 2"]],
    ["a string with quotes and brackets", '{"a":"x\\"]}\\\\","b":1}', ["/a", "/b"], ['/a "x\\"]}\\\\"', "/b 1"]],
    ["numbers as they are spelled", '{"a":-1.50E+400}', ["/a"], ["/a -1.50E+400"]],
    ["an integer that no double holds", '{"id":9007199254740993}', ["/id"], ["/id 9007199254740993"]],
    ["literals up to white space", '{"a" :\ttrue \n,"b":null}', ["/a", "/b"], ["/a true", "/b null"]],
    ["__proto__", '{"__proto__":{"a":1}}', ["/__proto__/a"], ["/__proto__/a 1"]],
    ["an empty object and an array", '{"a":{ },"b":[ ]}', ["/a", "/b"], ["/a { }", "/b [ ]"]],
  ])("finds %s", (_, text, pointers, expected) => {
    expect(find(text, ...pointers)).toEqual(expected);
  });

  it.each([
    ["no JSON", "{", "not JSON"],
    ["a byte order mark", "\uFEFF{}", "not JSON"],
    ["a name twice", '{"a":1,"a":2}', "duplicate key"],
    ["a name twice, once escaped", '{"a":1,"\\u0061":2}', "duplicate key"],
    ["a name twice, far from any pattern", '{"x":[{"y":1,"y":2}]}', "duplicate key"],
    ["a name twice, within what is taken out", '{"a":{"y":1,"y":2}}', "duplicate key"],
  ])("refuses %s", (_, text, error) => expect(find(text, "/a")).toBe(error));

  it("holds the depth, and is refused one past it", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(find(nested(MAX_JSON_DEPTH), "/a")).toEqual([]);
    expect(find(nested(MAX_JSON_DEPTH + 1), "/a")).toBe(`nested deeper than ${MAX_JSON_DEPTH}`);
    expect(find(nested(100_000), "/a")).toBe(`nested deeper than ${MAX_JSON_DEPTH}`);
  });

  it("holds the number of values, and is refused one past it", () => {
    const of = (count: number) => findValues(JSON.stringify(Array(count).fill(1)), [pattern("/*")], 10);
    expect(of(10).ok).toBe(true);
    expect(of(11)).toEqual({ ok: false, error: "more than 10 values" });
  });

  it("takes time that is linear in a hostile text", () => {
    const backslashes = JSON.stringify("\\".repeat(200_000));
    expect(find(`{"a":${backslashes}}`, "/a")).toHaveLength(1);
    expect(find(`[${'{"a":1},'.repeat(100_000)}0]`, "/b")).toEqual([]);
  });

  /** The same question, asked of the parsed value in the simplest way. */
  function reference(value: unknown, tokens: readonly string[]): unknown[] {
    const [token, ...rest] = tokens;
    if (token === undefined) return [value];
    if (Array.isArray(value)) {
      if (token === "*") return value.flatMap((item) => reference(item, rest));
      if (/^(0|[1-9]\d*)$/.test(token)) return Number(token) in value ? reference(value[Number(token)], rest) : [];
      return value.flatMap((item) => reference(item, tokens));
    }
    if (typeof value !== "object" || value === null) return [];
    return Object.keys(value)
      .filter((key) => token === "*" || key.toUpperCase().toLowerCase() === token.toUpperCase().toLowerCase())
      .flatMap((key) => reference((value as Record<string, unknown>)[key], rest));
  }

  it("finds what a walk of the parsed value finds", () => {
    const name = fc.constantFrom("a", "B", "0", "1", "", "*", "x/y", "~");
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof({ maxDepth: 5 }, fc.jsonValue({ maxDepth: 0 }), tie("list"), tie("object")),
      list: fc.array(tie("tree"), { maxLength: 3 }),
      object: fc.dictionary(name, tie("tree"), { maxKeys: 3 }),
    }));
    const tokens = fc.array(name, { maxLength: 4 });
    fc.assert(
      fc.property(tree, tokens, fc.constantFrom(undefined, 1, "\t"), (value, path, indent) => {
        const text = JSON.stringify(value, null, indent);
        const found = findValues(text, [{ tokens: path }], 10_000);
        const sources = found.ok
          ? found.value.map(({ start, end }) => JSON.parse(text.slice(start, end)))
          : found.error;
        expect(sources).toEqual(reference(JSON.parse(text), path));
      }),
      { numRuns: 500 },
    );
  });
});
