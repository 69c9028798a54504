import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BodyFacts, Call, Json } from "../../src/scope/call.ts";
import { decide, factsNeeded, type Layer, matches } from "../../src/scope/decide.ts";
import { type Entry, parseEntry } from "../../src/scope/entry.ts";

const entry = (operations: string[], where: Json = {}, upstream = "crm"): Entry => {
  const result = parseEntry({ type: "http", upstream, operations, where }, "e");
  if (!result.ok) throw new Error(`${result.error.path}: ${result.error.message}`);
  return result.value;
};
const call = (fields: Partial<Call> = {}): Call => ({
  upstream: "crm",
  method: "POST",
  segments: ["orders"],
  query: [],
  body: { kind: "none" },
  ...fields,
});
const json = (value: Json): BodyFacts => ({ kind: "json", value });

describe("decide", () => {
  const open: Layer = { name: "open", entries: [entry(["POST /{+all}"])] };
  const shut: Layer = { name: "shut", entries: [] };

  it("denies when nothing is given", () => {
    expect(decide([], call())).toEqual({ ok: false, layer: "none" });
  });

  it.each<[string, Layer[], object]>([
    ["an empty layer", [shut], { ok: false, layer: "shut" }],
    ["a layer that allows", [open], { ok: true, permits: [{ entry: 0, operation: "POST /{+all}" }] }],
    ["an empty layer after one that allows", [open, shut], { ok: false, layer: "shut" }],
    ["an empty layer before one that allows", [shut, open], { ok: false, layer: "shut" }],
    ["two that deny", [open, { name: "b", entries: [] }, shut], { ok: false, layer: "b" }],
    [
      "a layer of another upstream",
      [{ name: "a", entries: [entry(["POST /orders"], {}, "erp")] }],
      { ok: false, layer: "a" },
    ],
    [
      "a layer with one entry of two that allows",
      [{ name: "a", entries: [entry(["GET /orders"]), entry(["POST /orders"])] }],
      { ok: true, permits: [{ entry: 1, operation: "POST /orders" }] },
    ],
  ])("%s", (_, layers, expected) => {
    expect(decide(layers, call())).toEqual(expected);
  });

  it("does not add up two entries of a layer", () => {
    const byTable = entry(["POST /{table}"], { table: ["orders"], "query.dry": ["1"] });
    const byAmount = entry(["POST /{table}"], { table: ["invoices"] });
    expect(decide([{ name: "grant", entries: [byTable, byAmount] }], call())).toEqual({ ok: false, layer: "grant" });
  });

  it("denies if any single layer alone denies, and allows only what each allows", () => {
    const pool = [
      entry(["POST /orders"]),
      entry(["GET /{+all}"]),
      entry(["POST /{table}"], { table: ["orders", "x"] }),
      entry(["POST /{table}"], { "query.q": ["1"] }),
      entry(["POST /{+all}"], { "body./n": { max: 5 } }),
    ];
    const layers = fc
      .array(fc.subarray(pool), { maxLength: 4 })
      .map((stack) => stack.map((entries, i): Layer => ({ name: `${i}`, entries })));
    const calls = fc.record({
      upstream: fc.constantFrom("crm", "crm", "crm", "erp"),
      method: fc.constantFrom("GET", "POST", "POST"),
      segments: fc.constantFrom(["orders"], ["x"], ["a", "b"]),
      query: fc.constantFrom([], [["q", "1"] as const]),
      body: fc.constantFrom<BodyFacts>({ kind: "none" }, { kind: "opaque" }, json({ n: 3 }), json({ n: 7 })),
    });
    let allowed = 0;
    fc.assert(
      fc.property(layers, calls, (stack, one) => {
        const alone = stack.map((layer) => decide([layer], one).ok);
        const together = decide(stack, one);
        expect(together.ok).toBe(alone.length > 0 && alone.every(Boolean));
        if (!together.ok && stack.length > 0) expect(together.layer).toBe(stack[alone.indexOf(false)]!.name);
        allowed += together.ok ? 1 : 0;
      }),
      { numRuns: 1000 },
    );
    expect(allowed).toBeGreaterThan(50);
  });
});

describe("matches", () => {
  it("denies when nothing is given", () => {
    const nothing: Call = { upstream: "", method: "", segments: [], query: [], body: { kind: "none" } };
    expect(matches(entry(["GET /{+all}"]), nothing)).toBe(false);
    expect(matches({ ...entry(["POST /orders"]), operations: [] }, call())).toBe(false);
  });

  it.each<[string, Partial<Call>, boolean]>([
    ["the call", {}, true],
    ["another upstream", { upstream: "erp" }, false],
    ["an upstream in capitals", { upstream: "CRM" }, false],
    ["another method", { method: "PUT" }, false],
    ["another table", { segments: ["customers"] }, false],
    ["a trailing slash", { segments: ["orders", ""] }, false],
    ["a segment more", { segments: ["orders", "1"] }, false],
    ["no segment", { segments: [] }, false],
    ["a query nobody speaks of", { query: [["q", "1"]] }, true],
    ["a body nobody speaks of", { body: { kind: "opaque" } }, true],
  ])("a condition on the path: %s", (_, fields, expected) => {
    expect(matches(entry(["POST /{table}"], { table: ["orders"] }), call(fields))).toBe(expected);
  });

  it("tries each operation with its own facts", () => {
    const either = entry(["POST /{a}/x", "POST /x/{a}"], { a: ["y"] });
    expect(matches(either, call({ segments: ["x", "y"] }))).toBe(true);
    expect(matches(either, call({ segments: ["y", "x"] }))).toBe(true);
    expect(matches(either, call({ segments: ["x", "x"] }))).toBe(false);
  });

  it("needs every condition", () => {
    const both = entry(["POST /{table}"], { table: ["orders"], "query.dry": ["1"], "body./n": { max: 5 } });
    const good = { query: [["dry", "1"]], body: json({ n: 5 }) } as const;
    expect(matches(both, call(good))).toBe(true);
    expect(matches(both, call({ ...good, segments: ["x"] }))).toBe(false);
    expect(matches(both, call({ ...good, query: [["dry", "0"]] }))).toBe(false);
    expect(matches(both, call({ ...good, body: json({ n: 6 }) }))).toBe(false);
  });

  it("denies a fact that it does not know", () => {
    const built = { ...entry(["POST /orders"]), where: new Map([["args.path", { kind: "absent" } as const]]) };
    expect(matches(built, call())).toBe(false);
    const unbound = { ...entry(["POST /orders"]), where: new Map([["table", { kind: "absent" } as const]]) };
    expect(matches(unbound, call())).toBe(false);
  });

  const ABSENT = { absent: true };
  it.each<[string, Json, [string, string][], boolean]>([
    ["q", ["1"], [], false],
    ["q", ["1"], [["q", "1"]], true],
    [
      "q",
      ["1"],
      [
        ["a", "0"],
        ["q", "1"],
      ],
      true,
    ],
    ["q", ["1"], [["q", "2"]], false],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["q", "1"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["q", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "2"],
        ["q", "1"],
      ],
      false,
    ],
    ["q", [""], [["q", ""]], true],
    [
      "q",
      [""],
      [
        ["q", ""],
        ["q", ""],
      ],
      false,
    ],
    ["q", ["1"], [["Q", "1"]], false],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["Q", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["Q", "2"],
        ["q", "1"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["q[]", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["q[0]", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["Q[x][y]", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["q[", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        [" q", "2"],
      ],
      false,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["qq", "2"],
      ],
      true,
    ],
    [
      "q",
      ["1"],
      [
        ["q", "1"],
        ["a[q]", "2"],
      ],
      true,
    ],
    [
      "k",
      ["1"],
      [
        ["k", "1"],
        ["\u212a", "2"],
      ],
      false,
    ],
    [
      "s",
      ["1"],
      [
        ["s", "1"],
        ["\u017f", "2"],
      ],
      false,
    ],
    [
      "a_b",
      ["1"],
      [
        ["a_b", "1"],
        ["a.b", "2"],
      ],
      false,
    ],
    [
      "a_b",
      ["1"],
      [
        ["a_b", "1"],
        ["a b", "2"],
      ],
      false,
    ],
    [
      "a_b",
      ["1"],
      [
        ["a_b", "1"],
        ["aXb", "2"],
      ],
      true,
    ],
    ["a[]", ["1"], [["a[]", "1"]], true],
    [
      "a[]",
      ["1"],
      [
        ["a[]", "1"],
        ["a[]", "2"],
      ],
      false,
    ],
    [
      "a[]",
      ["1"],
      [
        ["a[]", "1"],
        ["a", "2"],
      ],
      false,
    ],
    [
      "a[]",
      ["1"],
      [
        ["a[]", "1"],
        ["a[0]", "2"],
      ],
      false,
    ],
    [
      "a[0][x]",
      ["1"],
      [
        ["a[0][x]", "1"],
        ["a[0][y]", "2"],
      ],
      true,
    ],
    ["q", ABSENT, [], true],
    ["q", ABSENT, [["a", "1"]], true],
    ["q", ABSENT, [["q", ""]], false],
    [
      "q",
      ABSENT,
      [
        ["q", "1"],
        ["q", "1"],
      ],
      false,
    ],
    ["q", ABSENT, [["Q", "1"]], false],
    ["q", ABSENT, [["q[]", "1"]], false],
    ["limit", { max: 100 }, [["limit", "100"]], true],
    ["limit", { max: 100 }, [["limit", "101"]], false],
    ["limit", { max: 100 }, [["limit", "1e9"]], false],
    ["limit", { max: 100 }, [["limit", " 1"]], false],
    ["limit", { max: 100 }, [["limit", ""]], false],
    ["limit", { max: 100 }, [], false],
    ["constructor", ABSENT, [], true],
    ["toString", ["x"], [], false],
    ["__proto__", ["x"], [["__proto__", "x"]], true],
  ])("query.%s %j on %j: %s", (name, predicate, query, expected) => {
    expect(matches(entry(["POST /orders"], { [`query.${name}`]: predicate }), call({ query }))).toBe(expected);
  });

  describe("a parameter that some framework reads as the constrained one", () => {
    const holds = (name: string, predicate: Json, ...query: readonly (readonly [string, string])[]): boolean =>
      matches(entry(["POST /orders"], { [`query.${name}`]: predicate }), call({ query }));

    it.each<[name: string, other: string]>([
      ["account_id", "[account_id]"],
      ["account_id", "[account_id"],
      ["account_id", "account_id]"],
      ["account_id", "account[id"],
      ["account_id", "account[id]"],
      ["account_id", "account.id"],
      ["account_id", "account id"],
      ["account_id", "ACCOUNT[ID"],
      ["account_id", "account_id[]"],
      ["account_id", "account_id[x"],
      ["account_id", "account_id.x"],
      ["account_id", "account_id]_x"],
      ["account_id", "[[account_id]]"],
      // Protocol Buffers' JSON has two names for each field, and readers take both.
      ["account_id", "accountId"],
      ["accountId", "account_id"],
      ["accountId", "account_id.x"],
      ["filter.pageSize", "filter.page_size"],
      ["pageSize[x]", "page_size[x]"],
      ["account_id", "_account_id"],
      ["account_id", "account__id"],
      ["account_id", "account_id_"],
      ["sudo", "[sudo]"],
      ["sudo", "[sudo"],
      ["sudo", "sudo]"],
      ["sudo", "][sudo"],
      ["sudo", "sudo\u00a0"],
      ["sudo", "\u017fudo]"],
      ["filter[state]", "filter[state=all"],
      ["filter[state]", "filter[state"],
      ["filter[state]", "filter[state]]"],
      ["filter[state]", "filter[[state]"],
      ["filter[state]", "filter.state"],
      ["filter[state]", "filter_state"],
      ["filter[state]", "filter[state][x]"],
      ["filter[state]", "filter"],
      ["filter[state]", "[filter]"],
      ["fields[]", "fields"],
      ["fields[]", "fields[0]"],
      ["fields[]", "[fields]"],
    ])("query.%s beside %s", (name, spelling) => {
      const [other = "", value = "evil"] = spelling.split("=");
      expect(holds(name, ["ok"], [name, "ok"], [other, value])).toBe(false);
      expect(holds(name, ["ok"], [other, value], [name, "ok"])).toBe(false);
      expect(holds(name, { absent: true }, [other, value])).toBe(false);
      expect(holds(name, ["ok"], [name, "ok"])).toBe(true);
    });

    it.each<[name: string, other: string]>([
      ["page", "page_size"],
      ["page_size", "page"],
      ["account_id", "account"],
      ["account_id", "my_account_id"],
      ["filter[state]", "filter[labels]"],
      ["filter[state]", "filter[state_reason]"],
      ["filter[state]", "state"],
      ["sudo", "sudoer"],
      ["sudo", "_"],
      ["sudo", ""],
      ["sudo", "[]"],
    ])("query.%s is another than %s", (name, other) => {
      expect(holds(name, ["ok"], [name, "ok"], [other, "1"])).toBe(true);
      expect(holds(name, { absent: true }, [other, "1"])).toBe(true);
    });

    it("never matches beside a random mutation by brackets, dots, spaces and case", () => {
      const word = fc.constantFrom("account", "id", "filter", "state", "q", "s", "k");
      const name = fc
        .tuple(word, fc.array(fc.tuple(fc.constantFrom("_", ".", "[", "]["), word), { maxLength: 2 }))
        .map(([first, more]) => first + more.map(([separator, next]) => separator + next).join(""))
        .map((text) => (text.includes("[") ? `${text}]` : text));
      const noise = fc.string({ unit: fc.constantFrom("[", "]", ".", " ", "\t", "[]", "_"), maxLength: 3 });
      const cased = (text: string, upper: boolean) => (upper ? text.toUpperCase() : text);
      const mutation = name.chain((text) => {
        const words = text.split(/[._[\]]+/).filter((one) => one !== "");
        return fc
          .record({
            before: noise,
            between: fc.array(
              noise.filter((one) => one !== ""),
              { minLength: words.length, maxLength: words.length },
            ),
            after: noise,
            upper: fc.array(fc.boolean(), { minLength: words.length, maxLength: words.length }),
            below: fc.constantFrom("", "[x]", "[x", ".x", "[0][y]"),
          })
          .map(({ before, between, after, upper, below }) => ({
            text,
            other:
              before +
              words.map((one, i) => (i > 0 ? between[i] : "") + cased(one, upper[i] === true)).join("") +
              after +
              below,
          }))
          .filter(({ other }) => other !== text);
      });
      fc.assert(
        fc.property(mutation, fc.boolean(), ({ text, other }, first) => {
          const right = [text, "ok"] as const;
          const evil = [other, "evil"] as const;
          expect(holds(text, ["ok"], ...(first ? [evil, right] : [right, evil]))).toBe(false);
          expect(holds(text, { absent: true }, evil)).toBe(false);
        }),
        { numRuns: 5_000 },
      );
    });
  });

  it.each<[string, Json, BodyFacts, boolean]>([
    ["/a", [1], { kind: "none" }, false],
    ["/a", [1], { kind: "opaque" }, false],
    ["/a", ABSENT, { kind: "none" }, true],
    ["/a", ABSENT, { kind: "opaque" }, false],
    ["", ABSENT, { kind: "none" }, true],
    ["", ABSENT, json(null), false],
    ["", [null], json(null), true],
    ["/a", [1], json({ a: 1 }), true],
    ["/a", [1], json({ a: "1" }), false],
    ["/a", [1], json({ a: [1] }), false],
    ["/a", [1], json({ b: 1 }), false],
    ["/a", [1], json([]), false],
    ["/a", [1], json(null), false],
    ["/a", [1], json("a"), false],
    ["/a", [null], json({ a: null }), true],
    ["/a", [null], json({}), false],
    ["/a", { prefix: "x" }, json({ a: ["x"] }), false],
    ["/a", { maxLength: 3 }, json({ a: [] }), false],
    ["/a", { min: 0 }, json({ a: {} }), false],
    ["/a", ABSENT, json({}), true],
    ["/a", ABSENT, json({ a: null }), false],
    ["/a", ABSENT, json({ a: {} }), false],
    ["/a", ABSENT, json("a"), true],
    ["/a", ABSENT, json([{ a: 1 }]), false],
    ["/a", ABSENT, json([]), false],
    ["/a", ABSENT, json({ A: 1 }), false],
    ["/a", [1], json({ a: 1, A: 2 }), false],
    ["/k", [1], json({ k: 1, "\u212a": 2 }), false],
    ["/a", [1], json({ a: 1, b: 2, aa: 3 }), true],
    ["/maxAmount", [1], json({ maxAmount: 1, max_amount: 2 }), false],
    ["/max_amount", [1], json({ max_amount: 1, maxAmount: 2 }), false],
    ["/maxAmount", ABSENT, json({ max_amount: 1 }), false],
    ["/max_amount", [1], json({ max_amount: 1, max: 2, amount: 3 }), true],
    ["/a/b", [1], json({ a: { b: 1 } }), true],
    ["/a/b", [1], json({ a: { b: 1, B: 2 } }), false],
    ["/a/b", ABSENT, json({ a: 1 }), true],
    ["/a/b", ABSENT, json({ a: [{ b: 1 }] }), false],
    ["/a/0", [1], json({ a: [1] }), true],
    ["/a/0", [1], json({ a: { 0: 1 } }), true],
    ["/a/1", [1], json({ a: [1] }), false],
    ["/a/1", ABSENT, json({ a: [1] }), true],
    ["/a/00", ABSENT, json({ a: [1] }), false],
    ["/a/-", ABSENT, json({ a: [1] }), false],
    ["/a/length", [1], json({ a: [1] }), false],
    ["/a/length", ABSENT, json({ a: [1] }), false],
    ["/a/length", ABSENT, json({ a: "x" }), true],
    ["/", [1], json({ "": 1 }), true],
    ["/a~1b", [1], json({ "a/b": 1 }), true],
    ["/a~0b", [1], json({ "a~b": 1 }), true],
    ["/constructor", ABSENT, json({}), true],
    ["/constructor/name", ["Object"], json({}), false],
    ["/toString", ABSENT, json({}), true],
    ["/__proto__", ABSENT, json({}), true],
    ["/__proto__/a", [1], json({}), false],
    ["/hasOwnProperty", [1], json({ hasOwnProperty: 1 }), true],
  ])("body.%s %j on %j: %s", (pointer, predicate, body, expected) => {
    expect(matches(entry(["POST /orders"], { [`body.${pointer}`]: predicate }), call({ body }))).toBe(expected);
  });
});

describe("factsNeeded", () => {
  it("needs nothing for nothing", () => {
    expect(factsNeeded([])).toEqual({ query: new Set(), body: false });
    expect(factsNeeded([entry(["GET /{a}"], { a: ["x"] })])).toEqual({ query: new Set(), body: false });
  });

  it("gathers over all entries", () => {
    const entries = [
      entry(["GET /a"], { "query.q": ["1"], "query.constructor": ["1"] }),
      entry(["GET /a"], { "query.q": ["2"], "body./n": [1] }),
    ];
    expect(factsNeeded(entries)).toEqual({ query: new Set(["q", "constructor"]), body: true });
  });
});
