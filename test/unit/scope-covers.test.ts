import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BodyFacts, Call, Json } from "../../src/scope/call.ts";
import { coveredBy, covers, matches } from "../../src/scope/decide.ts";
import { type Entry, parseEntry } from "../../src/scope/entry.ts";

type Where = { readonly [fact: string]: Json };

const entry = (operations: string | readonly string[], where: Where = {}, upstream = "crm"): Entry => {
  const result = parseEntry({ type: "http", upstream, operations: [operations].flat(), where }, "e");
  if (!result.ok) throw new Error(`${result.error.path}: ${result.error.message}`);
  return result.value;
};

describe("covers", () => {
  it("denies when nothing is given", () => {
    const nothing = { ...entry("GET /a"), operations: [] };
    expect(coveredBy([], entry("GET /a"))).toBe(false);
    expect(coveredBy([], nothing)).toBe(false);
    expect(covers(entry("GET /{+a}"), nothing)).toBe(false);
    expect(covers(nothing, entry("GET /a"))).toBe(false);
  });

  it.each<[string, string, boolean]>([
    ["GET /a", "GET /a", true],
    ["GET /a", "GET /b", false],
    ["GET /a", "HEAD /a", true],
    ["HEAD /a", "GET /a", false],
    ["GET /a", "POST /a", false],
    ["GET /a", "GET /a/", false],
    ["GET /a/", "GET /a", false],
    ["GET /a/", "GET /a/", true],
    ["GET /", "GET /", true],
    ["GET /{x}", "GET /", false],
    ["GET /{+x}", "GET /", false],
    ["GET /{x}", "GET /a", true],
    ["GET /a", "GET /{x}", false],
    ["GET /{x}", "GET /{y}", true],
    ["GET /{x}", "GET /{x}/{y}", false],
    ["GET /{x}/{y}", "GET /{x}", false],
    ["GET /{x}", "GET /{+y}", false],
    ["GET /{+x}", "GET /{y}", true],
    ["GET /{+x}", "GET /{+y}", true],
    ["GET /{+x}", "GET /a/{y}/{+z}", true],
    ["GET /{+x}", "GET /a/", false],
    ["GET /{+x}", "GET /a/{y}/", false],
    ["GET /{x}/{+y}", "GET /a/b/c", true],
    ["GET /{x}/{+y}", "GET /a", false],
    ["GET /{x}/{+y}", "GET /{+z}", false],
    ["GET /a/{+y}", "GET /{z}/{+y}", false],
  ])("%s, %s: %s", (wider, narrower, expected) => {
    expect(covers(entry(wider), entry(narrower))).toBe(expected);
  });

  const ABSENT = { absent: true };
  it.each<[string, Where, string, Where, boolean]>([
    ["/{x}", { x: ["a", "b"] }, "/a", {}, true],
    ["/{x}", { x: ["a", "b"] }, "/c", {}, false],
    ["/{x}", { x: { prefix: "a" } }, "/ab", {}, true],
    ["/{x}", { x: { max: 5 } }, "/5", {}, true],
    ["/{x}", { x: { max: 5 } }, "/6", {}, false],
    ["/{x}", { x: ["a", "b"] }, "/{y}", { y: ["b"] }, true],
    ["/{x}", { x: ["a", "b"] }, "/{y}", { y: ["b", "c"] }, false],
    ["/{x}", { x: ["a"] }, "/{x}", {}, false],
    ["/{x}", {}, "/{x}", { x: ["a"] }, true],
    ["/a", {}, "/{x}", { x: ["a"] }, true],
    ["/a", {}, "/{x}", { x: ["a", "b"] }, false],
    ["/a", {}, "/{x}", { x: { prefix: "a" } }, false],
    ["/{x}/{y}", { x: ["a"] }, "/{y}/{x}", { x: ["a"] }, false],
    ["/{x}/{y}", { x: ["a"] }, "/{y}/{x}", { y: ["a"] }, true],
    ["/{+r}", { r: ["a/b"] }, "/a/b", {}, true],
    ["/{+r}", { r: ["a/b"] }, "/a/c", {}, false],
    ["/{+r}", { r: ["a/b"] }, "/a/{y}", { y: ["b"] }, true],
    ["/{+r}", { r: ["a/b"] }, "/a/{y}", { y: ["b", "c"] }, false],
    ["/{+r}", { r: { prefix: "a/" } }, "/a/{y}", {}, true],
    ["/{+r}", { r: { prefix: "a/" } }, "/a/{+y}", {}, true],
    ["/{+r}", { r: { prefix: "a/" } }, "/a", {}, false],
    ["/{+r}", { r: { prefix: "a/b" } }, "/a/{y}", {}, false],
    ["/{+r}", { r: { prefix: "a/b" } }, "/a/{y}", { y: { prefix: "bc" } }, true],
    ["/{+r}", { r: { prefix: "a/b" } }, "/a/{y}/c", { y: { prefix: "b" } }, true],
    ["/{+r}", { r: { prefix: "a" } }, "/{y}/c", { y: { prefix: "a" } }, true],
    ["/{+r}", { r: { prefix: "a" } }, "/{y}/c", {}, false],
    ["/{+r}", { r: { maxLength: 3 } }, "/a/b", {}, true],
    ["/{+r}", { r: { maxLength: 3 } }, "/{y}/b", { y: { maxLength: 1 } }, false],
    ["/{+r}", { r: { maxLength: 3 } }, "/{y}", { y: { maxLength: 3 } }, true],
    ["/{+r}", { r: { maxLength: 3 } }, "/a/{y}", { y: { maxLength: 1 } }, false],
    ["/{+r}", { r: { max: 5 } }, "/1/{y}", { y: { max: 5 } }, false],
    ["/{+r}", { r: ["a"] }, "/{+s}", { s: ["a"] }, true],
    ["/a/{+r}", { r: { prefix: "b" } }, "/a/{+s}", { s: { prefix: "b" } }, true],
    ["/a", {}, "/a", { "query.q": ["1"] }, true],
    ["/a", { "query.q": ["1"] }, "/a", {}, false],
    ["/a", { "query.q": ["1"] }, "/a", { "query.q": ["1"] }, true],
    ["/a", { "query.q": ["1"] }, "/a", { "query.Q": ["1"] }, false],
    ["/a", { "query.q": ["1"] }, "/a", { "query.q": ABSENT }, false],
    ["/a", { "query.q": ABSENT }, "/a", { "query.q": ABSENT }, true],
    ["/a", { "query.q": ABSENT }, "/a", {}, false],
    ["/a", { "query.q": { max: 9 } }, "/a", { "query.q": ["1", "9"] }, true],
    ["/a", { "body./n": { max: 9 } }, "/a", { "body./n": { max: 8 } }, true],
    ["/a", { "body./n": { max: 9 } }, "/a", { "body./n": { max: 10 } }, false],
    ["/a", { "body./n": { max: 9 } }, "/a", { "body./m": { max: 9 } }, false],
    ["/a", { "body./n": ["1"] }, "/a", { "body./n": [1] }, false],
    ["/{q}", { q: ["1"] }, "/{x}", { "query.q": ["1"] }, false],
    ["/{constructor}", { constructor: ["a"] }, "/{x}", {}, false],
    ["/{x}", {}, "/toString", {}, true],
    ["/{__proto__}", {}, "/{constructor}", {}, true],
  ])("%s %j, %s %j: %s", (wider, widerWhere, narrower, narrowerWhere, expected) => {
    expect(covers(entry(`POST ${wider}`, widerWhere), entry(`POST ${narrower}`, narrowerWhere))).toBe(expected);
  });

  it("compares the upstream", () => {
    expect(covers(entry("GET /a", {}, "crm"), entry("GET /a", {}, "erp"))).toBe(false);
  });

  it("needs every operation of the narrower", () => {
    expect(covers(entry(["GET /{x}", "POST /a"]), entry(["POST /a", "GET /b"]))).toBe(true);
    expect(covers(entry(["GET /{x}", "POST /a"]), entry(["GET /b", "POST /b"]))).toBe(false);
  });
});

describe("coveredBy", () => {
  it("covers each operation by an entry of its own choice", () => {
    const layer = [entry("GET /{x}"), entry("POST /a", {}, "erp"), entry("POST /a")];
    expect(coveredBy(layer, entry(["GET /b", "POST /a"]))).toBe(true);
    expect(coveredBy(layer, entry(["GET /b", "POST /b"]))).toBe(false);
  });

  it("never adds two entries up to one permission", () => {
    const byValue = [entry("GET /{x}", { x: ["a"] }), entry("GET /{x}", { x: ["b"] })];
    expect(coveredBy(byValue, entry("GET /{x}", { x: ["a", "b"] }))).toBe(false);
    const byFact = [entry("GET /{x}", { x: ["a"] }), entry("GET /{x}", { "query.q": ["1"] })];
    expect(coveredBy(byFact, entry("GET /{x}"))).toBe(false);
    expect(coveredBy(byFact, entry("GET /{x}", { x: ["a"] }))).toBe(true);
  });
});

// Small worlds: every call of the world is tried, so one wrong "covered" has nowhere to hide.
const VALUES = ["a", "b", "ab", "a/b", "1", ""];
const PATHS = [0, 1, 2].reduce<string[][]>(
  (paths) => [...paths, ...paths.flatMap((path) => VALUES.map((value) => [...path, value]))],
  [[]],
);
const QUERIES: Call["query"][] = [
  [],
  [["q", "a"]],
  [["q", "1"]],
  [
    ["q", "ab"],
    ["Q", "1"],
  ],
  [
    ["q", "a"],
    ["q", "a"],
  ],
  [
    ["q", "a"],
    ["[q", "1"],
  ],
];
const BODIES: BodyFacts[] = [
  { kind: "none" },
  { kind: "opaque" },
  ...[{}, { n: 1 }, { n: "1" }, { n: "ab" }, { n: null }, [{ n: 1 }]].map(
    (value) => ({ kind: "json", value }) as const,
  ),
];
const uniquePaths = [...new Map(PATHS.map((path) => [JSON.stringify(path), path])).values()];
const callsOf = (narrower: Entry): Call[] => {
  const bare = { ...narrower, where: new Map() };
  return uniquePaths
    .flatMap((segments) => ["GET", "HEAD", "POST"].map((method) => ({ upstream: "crm", method, segments })))
    .filter((one) => matches(bare, { ...one, query: [], body: { kind: "none" } }))
    .flatMap((one) => QUERIES.flatMap((query) => BODIES.map((body) => ({ ...one, query, body }))))
    .filter((one) => matches(narrower, one));
};

interface Draft {
  readonly method: string;
  readonly parts: readonly string[];
  readonly where: Where;
}
const build = ({ method, parts, where }: Draft): Entry => {
  const bound = Object.entries(where).filter(([name]) => /\./.test(name) || parts.some((p) => p.endsWith(`${name}}`)));
  return entry(`${method} /${parts.join("/")}`, Object.fromEntries(bound));
};

const textPredicate = fc.constantFrom<Json>(
  ["a"],
  ["a", "b"],
  ["a/b", "ab"],
  ["1"],
  ["a/a", "a/b"],
  { prefix: "a" },
  { prefix: "a/" },
  { prefix: "ab" },
  { maxLength: 1 },
  { maxLength: 3 },
  { min: 0 },
  { min: 1, max: 1 },
);
const queryPredicate = fc.oneof(
  { weight: 6, arbitrary: textPredicate },
  { weight: 1, arbitrary: fc.constant<Json>({ absent: true }) },
);
const bodyPredicate = fc.oneof(queryPredicate, fc.constantFrom<Json>([1], [1, "1", null], [null]));
const where: fc.Arbitrary<Where> = fc.record(
  { x: textPredicate, y: textPredicate, r: textPredicate, "query.q": queryPredicate, "body./n": bodyPredicate },
  { requiredKeys: [] },
);
const noWhere = fc.constant<Where>({});
const parts = fc
  .tuple(
    fc.uniqueArray(fc.constantFrom("a", "b", "1", "{x}", "{y}"), { minLength: 1, maxLength: 2 }),
    fc.constantFrom([], [], ["{+r}"], [""], ["a"]),
  )
  .map(([first, last]) => [...first, ...last]);
const draft = fc.record({
  method: fc.constantFrom("GET", "GET", "HEAD", "POST"),
  parts: fc.oneof(parts, fc.constant(["{+r}"])),
  where: fc.oneof(where, noWhere),
});

/** The draft with its conditions, or parts of its path, opened up: often covers it, and sometimes by a hair does not. */
const opened = ({ method, parts: given, where: conditions }: Draft): fc.Arbitrary<Draft> =>
  fc
    .record({
      open: fc.array(fc.constantFrom("keep", "keep", "param"), { minLength: given.length, maxLength: given.length }),
      rest: fc.option(fc.nat({ max: given.length - 1 }), { freq: 1, nil: given.length }),
      kept: fc.subarray(Object.entries(conditions)),
      others: fc.oneof({ weight: 2, arbitrary: noWhere }, { weight: 1, arbitrary: where }),
    })
    .map(({ open, rest, kept, others }) => {
      const names = ["{x}", "{y}", "{z}"].filter((name) => !given.includes(name));
      const changed = given.map((part, i) => (open[i] === "keep" || part === "{+r}" ? part : (names.pop() ?? part)));
      const cut = rest < given.length && !changed.slice(0, rest).includes("{+r}");
      return {
        method,
        parts: cut ? [...changed.slice(0, rest), "{+r}"] : changed,
        where: { ...Object.fromEntries(kept), ...others },
      };
    });

const pair = draft.chain((narrower) =>
  fc.tuple(
    fc.oneof({ weight: 4, arbitrary: opened(narrower) }, { weight: 1, arbitrary: draft }),
    fc.constant(narrower),
  ),
);

describe("covers, over all calls of a small world", { timeout: 30_000 }, () => {
  it("is sound: no call is in the narrower and not in the wider", () => {
    const runs = 1500;
    let covered = 0;
    let conditional = 0;
    let witnesses = 0;
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const [wider, narrower] = [build(a), build(b)];
        if (!covers(wider, narrower)) return;
        covered += 1;
        conditional += wider.where.size > 0 ? 1 : 0;
        const calls = callsOf(narrower);
        witnesses += calls.length > 0 ? 1 : 0;
        const escaped = calls.find((one) => !matches(wider, one));
        expect(escaped).toBeUndefined();
      }),
      { numRuns: runs },
    );
    // The property is worth its name only if it is not vacuous.
    expect(covered).toBeGreaterThan(runs / 8);
    expect(conditional).toBeGreaterThan(runs / 40);
    expect(witnesses).toBeGreaterThan(runs / 12);
  });

  it("is reflexive", () => {
    fc.assert(fc.property(draft.map(build), (one) => covers(one, one)));
  });

  it("holds along a chain: a child of a child stays within the first", () => {
    const chain = pair.chain(([b, c]) => fc.tuple(opened(b), fc.constant(b), fc.constant(c)));
    fc.assert(
      fc.property(chain, ([a, b, c]) => {
        const [first, child, grandchild] = [build(a), build(b), build(c)];
        if (!covers(first, child) || !covers(child, grandchild)) return;
        expect(callsOf(grandchild).find((one) => !matches(first, one))).toBeUndefined();
      }),
      { numRuns: 300 },
    );
  });
});
