import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Call, Json } from "../../src/scope/call.ts";
import { coveredBy, findPermit } from "../../src/scope/decide.ts";
import { type Entry, parseEntry } from "../../src/scope/entry.ts";
import { explain, explainCover, factsOf } from "../../src/scope/explain.ts";

const entry = (operations: readonly string[], where: Json = {}, upstream = "crm"): Entry => {
  const result = parseEntry({ type: "http", upstream, operations, where }, "e");
  if (!result.ok) throw new Error(`${result.error.path}: ${result.error.message}`);
  return result.value;
};
const call = (change: Partial<Call> = {}): Call => ({
  upstream: "crm",
  method: "GET",
  segments: ["orders", "7"],
  query: [],
  body: { kind: "none" },
  ...change,
});

describe("an explanation", () => {
  it("has nothing to say where there are no entries", () =>
    expect(explain([], call())).toEqual({ permit: undefined, misses: [] }));

  it("of what is allowed names the permit and no miss", () =>
    expect(explain([entry(["GET /bills"]), entry(["GET /orders/{id}"])], call())).toEqual({
      permit: { entry: 1, operation: "GET /orders/{id}" },
      misses: [],
    }));

  it("puts the nearest first: a condition, then a method, then the longest path; another upstream is none", () => {
    const layer = [
      entry(["GET /orders/{id}"], {}, "erp"),
      entry(["GET /bills/{id}", "GET /orders/{id}/lines", "DELETE /orders/{id}"]),
      entry(["GET /orders/{id}"], { id: ["8"], "query.limit": { max: 10 } }),
      entry(["GET /orders/{id}"], { id: { prefix: "8" } }),
    ];
    expect(explain(layer, call()).misses).toEqual([
      {
        entry: 3,
        operation: "GET /orders/{id}",
        kind: "condition",
        failed: [{ fact: "id", wanted: { prefix: "8" }, seen: "7" }],
      },
      {
        entry: 2,
        operation: "GET /orders/{id}",
        kind: "condition",
        failed: [
          { fact: "id", wanted: ["8"], seen: "7" },
          { fact: "query.limit", wanted: { max: 10 } },
        ],
      },
      { entry: 1, operation: "DELETE /orders/{id}", kind: "method", method: "DELETE" },
      { entry: 1, operation: "GET /orders/{id}/lines", kind: "path", matched: 2, wanted: "lines" },
      { entry: 1, operation: "GET /bills/{id}", kind: "path", matched: 0, wanted: "bills", seen: "orders" },
    ]);
  });

  it("says why a fact can't be read", () => {
    const twice = call({
      query: [
        ["limit", "1"],
        ["limit", "2"],
      ],
    });
    expect(explain([entry(["GET /orders/{id}"], { "query.limit": ["1"] })], twice).misses).toMatchObject([
      { failed: [{ fact: "query.limit", unreadable: "a query parameter that appears twice" }] },
    ]);
    const opaque = call({ method: "POST", body: { kind: "opaque" } });
    expect(explain([entry(["POST /orders/{id}"], { "body./a": ["1"] })], opaque).misses).toMatchObject([
      { failed: [{ fact: "body./a", unreadable: "the body is opaque" }] },
    ]);
  });

  it("names a path that goes on, and one of a method that HEAD may take", () => {
    expect(explain([entry(["GET /orders"])], call()).misses).toMatchObject([{ kind: "path", matched: 1, seen: "7" }]);
    expect(explain([entry(["GET /orders/{id}"])], call({ method: "HEAD" })).permit).toBeDefined();
  });

  it("has the facts that conditions speak of, of operations that fit", () => {
    const layer = [
      entry(["GET /orders/{id}"], { id: ["8"], "query.limit": ["1"], "query.page": ["1"] }),
      entry(["GET /bills/{bill}"], { bill: ["7"] }),
    ];
    expect([...factsOf(layer, call({ query: [["limit", "5"]] }))]).toEqual([
      ["id", "7"],
      ["query.limit", "5"],
    ]);
  });
});

describe("what exceeds a layer", () => {
  it("is each operation that no single entry holds, with those that would but for conditions", () => {
    const layer = [entry(["GET /orders/{id}"], { id: ["7"], "query.limit": { max: 10 } }), entry(["GET /bills"])];
    const asked = entry(["GET /orders/{id}", "POST /orders/{id}"], { id: ["7", "8"], "query.limit": { max: 5 } });
    expect(explainCover(layer, asked)).toEqual([
      { operation: "GET /orders/{id}", nearest: [{ entry: 0, facts: ["id"] }] },
      { operation: "POST /orders/{id}", nearest: [] },
    ]);
  });
});

const segment = fc.constantFrom("a", "b", "", "c/d");
const template = fc.constantFrom("/a", "/{x}", "/a/{x}", "/a/b", "/{+x}", "/a/{+x}", "/a/");
const operation = fc.tuple(fc.constantFrom("GET", "POST", "HEAD"), template).map((parts) => parts.join(" "));
const conditions = fc.constantFrom<Json>({}, { "query.q": ["1"] }, { "query.q": { absent: true } }, { "body./k": [1] });
const anyEntry = fc
  .tuple(fc.uniqueArray(operation, { minLength: 1, maxLength: 3 }), conditions, fc.constantFrom("crm", "erp"))
  .map((parts) => entry(...parts));
const anyCall = fc.record<Call>({
  upstream: fc.constantFrom("crm", "erp"),
  method: fc.constantFrom("GET", "POST", "HEAD", "PUT"),
  segments: fc.array(segment, { minLength: 1, maxLength: 3 }),
  query: fc.constantFrom<Call["query"]>(
    [],
    [["q", "1"]],
    [["q", "2"]],
    [
      ["q", "1"],
      ["Q", "1"],
    ],
  ),
  body: fc.constantFrom<Call["body"]>({ kind: "none" }, { kind: "opaque" }, { kind: "json", value: { k: 1 } }),
});

describe("an explanation decides nothing", () => {
  it("of its own: its permit is the decision's, and whom it refuses it owes a reason", () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 3 }), anyCall, (layer, asked) => {
        const { permit, misses } = explain(layer, asked);
        expect(permit).toEqual(findPermit(layer, asked));
        const operations = layer.filter(({ upstream }) => upstream === asked.upstream).flatMap((one) => one.operations);
        expect(misses).toHaveLength(permit === undefined ? operations.length : 0);
        for (const miss of misses) if (miss.kind === "condition") expect(miss.failed).not.toEqual([]);
      }),
      { numRuns: 2_000 },
    );
  });

  it("nor of what is covered", () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 3 }), anyEntry, (layer, asked) => {
        expect(explainCover(layer, asked).length === 0).toBe(coveredBy(layer, asked));
      }),
      { numRuns: 2_000 },
    );
  });
});
