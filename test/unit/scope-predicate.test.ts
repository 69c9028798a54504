import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Json } from "../../src/scope/call.ts";
import { evaluate, implies, MAX_LIST_ITEMS, type Predicate, parsePredicate } from "../../src/scope/predicate.ts";

const predicate = (value: unknown): Predicate => {
  const result = parsePredicate(value);
  if (!result.ok) throw new Error(`${JSON.stringify(value)}: ${result.error}`);
  return result.value;
};

describe("parsePredicate", () => {
  const SHAPE = "must be a list or an object";
  const KIND = "must be of one known kind";
  const ITEMS = "a list must hold strings, finite numbers, booleans or null";
  const FINITE = "min and max must be finite numbers";
  it.each<[unknown, string]>([
    [undefined, SHAPE],
    [null, SHAPE],
    ["a", SHAPE],
    [1, SHAPE],
    [true, SHAPE],
    [{}, KIND],
    [[], "a list must not be empty"],
    [[["a"]], ITEMS],
    [[{}], ITEMS],
    [["a", undefined], ITEMS],
    [[Number.NaN], ITEMS],
    [[Number.POSITIVE_INFINITY], ITEMS],
    [new Array(1), ITEMS],
    [{ prefix: "" }, "prefix must be a string that is not empty"],
    [{ prefix: 1 }, "prefix must be a string that is not empty"],
    [{ prefix: "a", maxLength: 1 }, KIND],
    [{ maxLength: 1, prefix: "a" }, KIND],
    [{ prefix: "a", extra: 1 }, KIND],
    [{ min: 1, prefix: "a" }, KIND],
    [{ max: 1, maxLength: 1 }, KIND],
    [{ min: "1" }, FINITE],
    [{ min: null }, FINITE],
    [{ max: null }, FINITE],
    [{ max: undefined }, FINITE],
    [{ min: 1, max: undefined }, FINITE],
    [{ min: Number.NEGATIVE_INFINITY }, FINITE],
    [{ max: Number.POSITIVE_INFINITY }, FINITE],
    [{ max: Number.NaN }, FINITE],
    [{ min: 2, max: 1 }, "min is above max"],
    [{ maxLength: -1 }, "maxLength must be an integer from 0"],
    [{ maxLength: 1.5 }, "maxLength must be an integer from 0"],
    [{ maxLength: "1" }, "maxLength must be an integer from 0"],
    [{ maxLength: 2 ** 53 }, "maxLength must be an integer from 0"],
    [{ absent: false }, "absent must be true"],
    [{ absent: 1 }, "absent must be true"],
    [{ absent: true, min: 1 }, KIND],
    [{ regex: "a" }, KIND],
    [{ Prefix: "a" }, KIND],
    [{ constructor: "a" }, KIND],
    [{ toString: "a" }, KIND],
    [JSON.parse('{"__proto__":{"absent":true}}'), KIND],
    [JSON.parse('{"absent":true,"__proto__":1}'), KIND],
  ])("refuses %j", (value, error) => {
    expect(parsePredicate(value)).toEqual({ ok: false, error });
  });

  it("refuses one value past the bound", () => {
    const items = Array.from({ length: MAX_LIST_ITEMS }, (_, i) => i);
    expect(parsePredicate(items).ok).toBe(true);
    expect(parsePredicate([...items, 0])).toEqual({
      ok: false,
      error: `a list has more than ${MAX_LIST_ITEMS} values`,
    });
  });

  it.each<[Json, object]>([
    [["a", 1, true, null], { kind: "list", items: ["a", 1, true, null] }],
    [{ prefix: "a" }, { kind: "prefix", prefix: "a" }],
    [{ min: 1 }, { kind: "range", min: 1, max: Infinity }],
    [{ max: 1 }, { kind: "range", min: -Infinity, max: 1 }],
    [
      { max: 1, min: 1 },
      { kind: "range", min: 1, max: 1 },
    ],
    [{ maxLength: 0 }, { kind: "maxLength", maxLength: 0 }],
    [{ absent: true }, { kind: "absent" }],
  ])("reads %j", (value, expected) => {
    expect(parsePredicate(value)).toEqual({ ok: true, value: expected });
  });
});

describe("evaluate", () => {
  it.each<[unknown]>([
    [["a"]],
    [[null]],
    [{ prefix: "a" }],
    [{ min: 0 }],
    [{ max: 0 }],
    [{ maxLength: 9 }],
  ])("%j does not hold for a fact that is absent", (value) => {
    expect(evaluate(predicate(value), undefined)).toBe(false);
  });

  it.each<[Json, Json, boolean]>([
    [["a", "b"], "b", true],
    [["a", "b"], "c", false],
    [["a"], "A", false],
    [["a"], ["a"], false],
    [["a"], { a: 1 }, false],
    [[1], 1, true],
    [[1], "1", false],
    [["1"], 1, false],
    [[true], "true", false],
    [[true], true, true],
    [[true], 1, false],
    [[null], null, true],
    [[null], false, false],
    [["é"], "e\u0301", false],
    [["toString"], "constructor", false],
    [{ prefix: "ab" }, "ab", true],
    [{ prefix: "ab" }, "abc", true],
    [{ prefix: "ab" }, "a", false],
    [{ prefix: "ab" }, "xab", false],
    [{ prefix: "ab" }, ["ab"], false],
    [{ prefix: "1" }, 1, false],
    [{ min: 1, max: 3 }, 1, true],
    [{ min: 1, max: 3 }, 3, true],
    [{ min: 1, max: 3 }, 0.999, false],
    [{ min: 1, max: 3 }, 3.001, false],
    [{ min: 1, max: 3 }, "2.50", true],
    [{ min: -3 }, "-3", true],
    [{ min: -3 }, "-3.1", false],
    [{ min: 0 }, "", false],
    [{ min: 0 }, " 1", false],
    [{ min: 0 }, "1\n", false],
    [{ min: 0 }, "01", false],
    [{ min: 0 }, "+1", false],
    [{ min: 0 }, "1.", false],
    [{ min: 0 }, ".5", false],
    [{ min: 0 }, "1e2", false],
    [{ min: 0 }, "0x1", false],
    [{ min: 0 }, "1_0", false],
    [{ min: 0 }, "1,5", false],
    [{ min: 0 }, "١", false],
    [{ min: 0 }, "Infinity", false],
    [{ min: 0 }, "123456789012345", true],
    [{ min: 0 }, "1234567890123456", false],
    [{ min: 0 }, "1.23456789012345", true],
    [{ min: 0 }, "1.234567890123456", false],
    [{ min: -9 }, "-1.23456789012345", true],
    [{ min: 0 }, null, false],
    [{ min: 0 }, true, false],
    [{ min: 0 }, [1], false],
    [{ maxLength: 2 }, "ab", true],
    [{ maxLength: 2 }, "abc", false],
    [{ maxLength: 1 }, "😀", false],
    [{ maxLength: 0 }, "", true],
    [{ maxLength: 9 }, [], false],
    [{ maxLength: 9 }, 1, false],
    [{ absent: true }, null, false],
    [{ absent: true }, "", false],
    [{ absent: true }, {}, false],
  ])("%j on %j: %s", (value, fact, expected) => {
    expect(evaluate(predicate(value), fact)).toBe(expected);
  });

  it("absent holds for a fact that is absent", () => {
    expect(evaluate(predicate({ absent: true }), undefined)).toBe(true);
  });
});

describe("implies", () => {
  it.each<[Json, Json, boolean]>([
    [["a"], ["a", "b"], true],
    [["a", "b"], ["b", "a"], true],
    [["a", "c"], ["a", "b"], false],
    [["1"], [1], false],
    [["ab", "ac"], { prefix: "a" }, true],
    [["ab", "bc"], { prefix: "a" }, false],
    [[1, "2"], { min: 1, max: 2 }, true],
    [[1, 3], { min: 1, max: 2 }, false],
    [["ab"], { maxLength: 2 }, true],
    [["abc"], { maxLength: 2 }, false],
    [[null], { absent: true }, false],
    [{ prefix: "ab" }, { prefix: "a" }, true],
    [{ prefix: "a" }, { prefix: "ab" }, false],
    [{ prefix: "a" }, ["a"], false],
    [{ prefix: "a" }, { maxLength: 9 }, false],
    [{ min: 1, max: 2 }, { min: 0, max: 3 }, true],
    [{ min: 1, max: 2 }, { min: 1 }, true],
    [{ min: 1 }, { min: 1, max: 2 }, false],
    [{ max: 2 }, { min: 1, max: 2 }, false],
    [{ min: 0, max: 2 }, { min: 1, max: 2 }, false],
    [{ min: 1, max: 1 }, [1], false],
    [{ maxLength: 1 }, { maxLength: 2 }, true],
    [{ maxLength: 3 }, { maxLength: 2 }, false],
    [{ maxLength: 0 }, [""], false],
    [{ absent: true }, { absent: true }, true],
    [{ absent: true }, ["a"], false],
    [{ absent: true }, { maxLength: 9 }, false],
  ])("%j implies %j: %s", (narrower, wider, expected) => {
    expect(implies(predicate(narrower), predicate(wider))).toBe(expected);
  });

  const text = fc.string({ unit: fc.constantFrom("a", "b", "1", "-", "."), maxLength: 3 });
  const number = fc.integer({ min: -3, max: 3 });
  const scalar = fc.oneof(text, number, fc.boolean(), fc.constant(null));
  const spelling: fc.Arbitrary<Json> = fc.oneof(
    fc.array(scalar, { minLength: 1, maxLength: 4 }),
    text.filter((prefix) => prefix !== "").map((prefix) => ({ prefix })),
    fc.tuple(number, number).map(([a, b]) => ({ min: Math.min(a, b), max: Math.max(a, b) })),
    number.map((min) => ({ min })),
    number.map((max) => ({ max })),
    fc.nat({ max: 3 }).map((maxLength) => ({ maxLength })),
    fc.constant({ absent: true }),
  );

  it("is sound: a fact of the narrower is a fact of the wider", () => {
    let implied = 0;
    let witnessed = 0;
    const facts = fc.array(fc.oneof(scalar, fc.constant(undefined), fc.constant<Json>([])), { minLength: 20 });
    fc.assert(
      fc.property(spelling, spelling, facts, (a, b, values) => {
        const [narrower, wider] = [predicate(a), predicate(b)];
        if (!implies(narrower, wider)) return;
        implied += 1;
        const own = Array.isArray(a) ? a : [];
        for (const fact of [...values, ...own].filter((value) => evaluate(narrower, value))) {
          witnessed += 1;
          expect(evaluate(wider, fact)).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
    expect(implied).toBeGreaterThan(60);
    expect(witnessed).toBeGreaterThan(60);
  });

  it("is reflexive", () => {
    fc.assert(fc.property(spelling, (value) => implies(predicate(value), predicate(value))));
  });
});
