import { describe, expect, it } from "vitest";
import {
  MAX_DETAILS_BYTES,
  MAX_ENTRIES,
  MAX_OPERATIONS,
  MAX_WHERE_FACTS,
  parseAuthorizationDetails,
  parseEntries,
  parseEntry,
} from "../../src/scope/entry.ts";
import { parseFact } from "../../src/scope/fact.ts";
import { MAX_LIST_ITEMS } from "../../src/scope/predicate.ts";
import { MAX_TEMPLATE_LENGTH } from "../../src/scope/template.ts";

const entry = (fields: object = {}) => ({
  type: "http",
  upstream: "airtable",
  operations: ["GET /{a}/{b}"],
  ...fields,
});
const pathOf = (value: unknown) => {
  const result = parseEntry(value, "e");
  return result.ok ? "accepted" : result.error.path;
};
const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

describe("parseEntry", () => {
  it("refuses nothing at all", () => {
    expect(parseEntry(undefined, "e")).toEqual({ ok: false, error: { path: "e", message: "must be an object" } });
    expect(parseEntry({}, "e")).toEqual({ ok: false, error: { path: "e.type", message: "must be a known type" } });
  });

  it("reads an entry, and keeps it as given", () => {
    const source = entry({ where: { a: ["x"], "query.limit": { max: 100 }, "body./n~1m": [1] } });
    const result = parseEntry(source, "e");
    expect(result.ok && result.value.source).toEqual(source);
    expect(result).toMatchObject({
      ok: true,
      value: { type: "http", upstream: "airtable", operations: [{ method: "GET", text: "GET /{a}/{b}" }] },
    });
    expect(result.ok && [...result.value.where]).toEqual([
      ["a", { kind: "list", items: ["x"] }],
      ["query.limit", { kind: "range", min: -Infinity, max: 100 }],
      ["body./n~1m", { kind: "list", items: [1] }],
    ]);
  });

  it("needs no where", () => {
    const result = parseEntry(entry(), "e");
    expect(result.ok && result.value.where.size).toBe(0);
  });

  it.each<[string, unknown, string]>([
    ["null", null, "e"],
    ["a string", "http", "e"],
    ["an array", [entry()], "e"],
    ["no type", { upstream: "a", operations: ["GET /"] }, "e.type"],
    ["a type that is no string", entry({ type: ["http"] }), "e.type"],
    ["an unknown type", entry({ type: "soap" }), "e.type"],
    ["a type in capitals", entry({ type: "HTTP" }), "e.type"],
    ["constructor as a type", entry({ type: "constructor" }), "e.type"],
    ["__proto__ as a type", entry({ type: "__proto__" }), "e.type"],
    ["toString as a type", entry({ type: "toString" }), "e.type"],
    ["a type from the prototype", Object.create({ type: "http" }), "e"],
    ["an unknown field", entry({ locations: ["https://x"] }), "e.locations"],
    ["a field near to a known one", entry({ Where: {} }), "e.Where"],
    ["actions", entry({ actions: ["*"] }), "e.actions"],
    ["a field named __proto__", JSON.parse('{"type":"http","__proto__":1}'), "e.__proto__"],
    ["a field named constructor", entry({ constructor: 1 }), "e.constructor"],
    ["a field that would break a log line", entry({ 'a\n"b"': 1 }), "e.(unprintable)"],
    ["no upstream", { type: "http", operations: ["GET /"] }, "e.upstream"],
    ["an upstream that is no string", entry({ upstream: ["a"] }), "e.upstream"],
    ["an empty upstream", entry({ upstream: "" }), "e.upstream"],
    ["an upstream in capitals", entry({ upstream: "Airtable" }), "e.upstream"],
    ["an upstream with a slash", entry({ upstream: "a/b" }), "e.upstream"],
    ["an upstream with a line end", entry({ upstream: "a\n" }), "e.upstream"],
    ["an upstream of 32 characters", entry({ upstream: "a".repeat(32) }), "e.upstream"],
    ["no operations", { type: "http", upstream: "a" }, "e.operations"],
    ["operations that are no array", entry({ operations: "GET /" }), "e.operations"],
    ["empty operations", entry({ operations: [] }), "e.operations"],
    ["an operation that is no string", entry({ operations: ["GET /", 1] }), "e.operations[1]"],
    ["a hole in the operations", entry({ operations: new Array(1) }), "e.operations[0]"],
    ["an operation that is no template", entry({ operations: ["GET /", "*"] }), "e.operations[1]"],
    ["where null", entry({ where: null }), "e.where"],
    ["where undefined", entry({ where: undefined }), "e.where"],
    ["where an array", entry({ where: [] }), "e.where"],
    ["where with a hidden condition", entry({ where: Object.setPrototypeOf({}, { a: ["x"] }) }), "e.where"],
    ["an unknown predicate", entry({ where: { a: { regex: "." } } }), "e.where.a"],
    ["an empty list", entry({ where: { a: [] } }), "e.where.a"],
    ["a scalar predicate", entry({ where: { a: "x" } }), "e.where.a"],
    ["a fact of no kind", entry({ where: { "header.x": ["a"] } }), "e.where.header.x"],
    ["an empty fact", entry({ where: { "": ["a"] } }), "e.where.(unprintable)"],
    ["a query fact without a name", entry({ where: { "query.": ["a"] } }), "e.where.query."],
    ["a body fact without a slash", entry({ where: { "body.a": ["a"] } }), "e.where.body.a"],
    ["a body fact with a bad escape", entry({ where: { "body./a~2": ["a"] } }), "e.where.body./a~2"],
    ["a body fact with half an escape", entry({ where: { "body./a~": ["a"] } }), "e.where.body./a~"],
    ["a path fact that no operation binds", entry({ where: { c: ["a"] } }), "e.where.c"],
    ["constructor as a fact", entry({ where: { constructor: ["a"] } }), "e.where.constructor"],
    ["__proto__ as a fact", entry({ where: JSON.parse('{"__proto__":["a"]}') }), "e.where.__proto__"],
    [
      "a path fact that one operation does not bind",
      entry({ operations: ["GET /{a}/{b}", "GET /{b}"], where: { a: ["x"] } }),
      "e.where.a",
    ],
    ["a path fact that is absent", entry({ where: { a: { absent: true } } }), "e.where.a"],
    ["a number in the list of a path fact", entry({ where: { a: ["x", 1] } }), "e.where.a"],
    ["null in the list of a query fact", entry({ where: { "query.q": [null] } }), "e.where.query.q"],
  ])("refuses %s", (_, value, path) => {
    expect(pathOf(value)).toBe(path);
  });

  it.each<[string, object]>([
    ["a path fact bound by all", { operations: ["GET /{a}", "PUT /{b}/{+a}"], where: { a: ["x"] } }],
    ["prototype names as parameters", { operations: ["GET /{constructor}"], where: { constructor: ["x"] } }],
    ["an absent query fact", { where: { "query.q": { absent: true } } }],
    ["scalars of all types in a body fact", { where: { "body./a": ["x", 1, true, null] } }],
    ["the whole body", { where: { "body.": { absent: true } } }],
    ["an upstream of 31 characters", { upstream: "a".repeat(31) }],
    ["the longest template", { operations: [`GET /${"a".repeat(MAX_TEMPLATE_LENGTH - 5)}`] }],
  ])("accepts %s", (_, fields) => {
    expect(pathOf(entry(fields))).toBe("accepted");
  });

  it("holds its bounds, and refuses one past each", () => {
    const operations = (count: number) => entry({ operations: times(count, (i) => `GET /${i}`) });
    expect(pathOf(operations(MAX_OPERATIONS))).toBe("accepted");
    expect(pathOf(operations(MAX_OPERATIONS + 1))).toBe("e.operations");
    const facts = (count: number) =>
      entry({ where: Object.fromEntries(times(count, (i) => [`query.q${i}`, ["x"]] as const)) });
    expect(pathOf(facts(MAX_WHERE_FACTS))).toBe("accepted");
    expect(pathOf(facts(MAX_WHERE_FACTS + 1))).toBe("e.where");
    const items = (count: number) => entry({ where: { a: times(count, String) } });
    expect(pathOf(items(MAX_LIST_ITEMS))).toBe("accepted");
    expect(pathOf(items(MAX_LIST_ITEMS + 1))).toBe("e.where.a");
    expect(pathOf(entry({ operations: [`GET /${"a".repeat(MAX_TEMPLATE_LENGTH - 4)}`] }))).toBe("e.operations[0]");
  });
});

describe("parseEntries", () => {
  it("refuses nothing at all", () => {
    expect(parseEntries(undefined, "ceiling").ok).toBe(false);
  });

  it("reads no entries as a layer of none", () => {
    expect(parseEntries([], "ceiling")).toEqual({ ok: true, value: [] });
  });

  it("says which entry is wrong", () => {
    const result = parseEntries([entry(), entry({ where: { b: [1] } })], "ceiling");
    expect(result).toEqual({
      ok: false,
      error: { path: "ceiling[1].where.b", message: "facts of path and query are strings" },
    });
  });

  it("refuses one entry past the bound", () => {
    expect(
      parseEntries(
        times(MAX_ENTRIES, () => entry()),
        "c",
      ).ok,
    ).toBe(true);
    expect(
      parseEntries(
        times(MAX_ENTRIES + 1, () => entry()),
        "c",
      ),
    ).toEqual({
      ok: false,
      error: { path: "c", message: `has more than ${MAX_ENTRIES} entries` },
    });
  });
});

describe("parseAuthorizationDetails", () => {
  const NAME = "authorization_details";
  const good = JSON.stringify(entry());

  it("refuses nothing at all", () => {
    expect(parseAuthorizationDetails("")).toEqual({ ok: false, error: { path: NAME, message: "not JSON" } });
  });

  it.each([
    ["not JSON", "{", NAME, "not JSON"],
    ["not an array", good, NAME, "must be an array"],
    ["null", "null", NAME, "must be an array"],
    ["an empty array", "[]", NAME, "must not be empty"],
    ["an array of strings", '["http"]', `${NAME}[0]`, "must be an object"],
    ["an array of arrays", "[[]]", `${NAME}[0]`, "must be an object"],
    ["a good entry and null", `[${good},null]`, `${NAME}[1]`, "must be an object"],
    ["a type twice", '[{"type":"http","type":"http"}]', NAME, "duplicate key at offset 16"],
    ["a condition twice", '[{"where":{"a":["x"],"\\u0061":["y"]}}]', NAME, "duplicate key at offset 21"],
    ["__proto__", '[{"__proto__":{"type":"http"}}]', NAME, "forbidden key at offset 2"],
    ["an unknown type", '[{"type":"constructor"}]', `${NAME}[0].type`, "must be a known type"],
    ["a wildcard action", '[{"type":"http","actions":["*"]}]', `${NAME}[0].actions`, "unknown field"],
    ["a megabyte", `[${" ".repeat(1_000_000)}]`, NAME, `longer than ${MAX_DETAILS_BYTES} bytes`],
    ["deep nesting", "[".repeat(1000) + "]".repeat(1000), NAME, "nested deeper than 64"],
  ])("refuses %s", (_, text, path, message) => {
    expect(parseAuthorizationDetails(text)).toEqual({ ok: false, error: { path, message } });
  });

  it("counts its bound in bytes, and refuses one past it", () => {
    const padded = (bytes: number) => `[${good}${" ".repeat(bytes - good.length - 2)}]`;
    expect(parseAuthorizationDetails(padded(MAX_DETAILS_BYTES)).ok).toBe(true);
    expect(parseAuthorizationDetails(padded(MAX_DETAILS_BYTES + 1)).ok).toBe(false);
    const wide = JSON.stringify([entry({ where: { a: ["é".repeat(MAX_DETAILS_BYTES / 2)] } })]);
    expect(parseAuthorizationDetails(wide)).toEqual({
      ok: false,
      error: { path: NAME, message: `longer than ${MAX_DETAILS_BYTES} bytes` },
    });
  });

  it("reads the same type twice as two entries", () => {
    const result = parseAuthorizationDetails(`[${good},${good}]`);
    expect(result.ok && result.value.map(({ upstream }) => upstream)).toEqual(["airtable", "airtable"]);
  });
});

describe("parseFact", () => {
  it("refuses nothing at all", () => {
    expect(parseFact("").ok).toBe(false);
  });

  it.each([
    ["table", { source: "path", name: "table" }],
    ["body", { source: "path", name: "body" }],
    ["query.limit", { source: "query", name: "limit" }],
    ["query.fields[]", { source: "query", name: "fields[]" }],
    ["query.a.b", { source: "query", name: "a.b" }],
    ["body.", { source: "body", tokens: [] }],
    ["body./", { source: "body", tokens: [""] }],
    ["body./a/0", { source: "body", tokens: ["a", "0"] }],
    ["body./a~1b/c~0d/~01", { source: "body", tokens: ["a/b", "c~d", "~1"] }],
  ])("reads %s", (text, fact) => {
    expect(parseFact(text)).toEqual({ ok: true, value: fact });
  });
});
