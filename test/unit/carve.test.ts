// A tree never spends more than its root: the arithmetic alone, over random trees and what they do.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { limits as limitsShape } from "../../src/config/agents.ts";
import type { Limits } from "../../src/config/define.ts";
import {
  type Amounts,
  type Asked,
  add,
  carve,
  NOTHING,
  reservedOf,
  type Spent,
  settleBucket,
  spendable,
  withoutChildren,
} from "../../src/instance/carve.ts";

const limitsOf = (change: object = {}): Limits => limitsShape.parse(change);
const LIMITS = limitsOf({
  calls: 100,
  bytes: 1_000,
  concurrency: 10,
  burst: 20,
  callsPerSecond: 10,
  units: { cents: 5 },
});
const WIDE = limitsOf({ calls: 1e9, bytes: 1e12, concurrency: 1e6, burst: 1e6, callsPerSecond: 1e6 });

describe("carve", () => {
  const cut = (asked: Asked = {}, change: { mine?: Limits; used?: Amounts; ceiling?: Limits; places?: number } = {}) =>
    carve(change.mine ?? LIMITS, change.used ?? NOTHING, change.ceiling ?? WIDE, asked, change.places ?? 4);

  it("gives, where nothing is asked, an equal share among the free places and the parent", () => {
    expect(cut()).toEqual({
      ok: true,
      value: { ...WIDE, calls: 20, bytes: 200, concurrency: 2, burst: 4, callsPerSecond: 2, units: { cents: 1 } },
    });
  });

  it("shares what is left, not what there was", () => {
    const used = { calls: 50, bytes: 500, concurrency: 5, units: { cents: 2.5 } };
    expect(cut({}, { used })).toMatchObject({
      value: { calls: 10, bytes: 100, concurrency: 1, units: { cents: 0.5 } },
    });
  });

  it("gives no more than the child's own agent may have, and keeps what is no limit of spending", () => {
    const ceiling = limitsOf({ calls: 3, units: { tokens: 7, cents: 0.25 }, refusalsRecordedPerMinute: 9 });
    expect(cut({}, { ceiling })).toMatchObject({
      value: { calls: 3, units: { tokens: 7, cents: 0.25 }, refusalsRecordedPerMinute: 9 },
    });
    expect(cut({ calls: 50 }, { ceiling })).toMatchObject({ value: { calls: 3 } });
  });

  it("gives who comes first one of what can't be cut into so many, as long as there is one", () => {
    expect(cut({}, { places: 99 })).toMatchObject({ value: { calls: 1, bytes: 10, concurrency: 1, burst: 1 } });
    expect(cut({}, { places: 99, used: { concurrency: 9, units: {} } })).toEqual({ ok: false, error: "concurrency" });
  });

  it.each<[string, Asked, Asked]>([
    ["calls", { calls: 100 }, { calls: 101 }],
    ["bytes", { bytes: 1_000 }, { bytes: 1_001 }],
    ["concurrency", { concurrency: 9 }, { concurrency: 10 }],
    ["burst", { burst: 19 }, { burst: 20 }],
    ["callsPerSecond", { callsPerSecond: 9.9 }, { callsPerSecond: 9.901 }],
    ["units.cents", { units: { cents: 5 } }, { units: { cents: 5.000001 } }],
  ])("gives all that the parent can part with of %s, and refuses one more by its name", (name, most, more) => {
    expect(cut(most)).toMatchObject({ ok: true, value: most });
    expect(cut(more)).toEqual({ ok: false, error: name });
  });

  it("refuses by its name what is spent", () => {
    expect(cut({}, { used: { calls: 100, units: {} } })).toEqual({ ok: false, error: "calls" });
    expect(cut({}, { used: { units: { cents: 5 } } })).toEqual({ ok: false, error: "units.cents" });
  });

  it("counts units in millionths, so that the last of them can be given, and whole numbers as they are", () => {
    const mine = limitsOf({ units: { cents: 0.15 } });
    const used = { units: { cents: 0.063 } };
    expect(cut({ units: { cents: 0.087 } }, { mine, used })).toMatchObject({ value: { units: { cents: 0.087 } } });
    expect(cut({ units: { cents: 0.087001 } }, { mine, used })).toEqual({ ok: false, error: "units.cents" });
    const much = { bytes: 9_000_000_000_001, units: {} };
    expect(add(much, { bytes: 2, units: {} }).bytes).toBe(9_000_000_000_003);
    const taken = { bytes: 1, callsPerSecond: 0.0000004, units: {} };
    expect(add(taken, taken)).toEqual({ bytes: 2, callsPerSecond: 0.0000008, units: {} });
  });

  it("takes nothing below zero, no part of nothing, and no unit by the name of a prototype's member", () => {
    expect(cut({ calls: 0 })).toEqual({ ok: false, error: "calls" });
    expect(cut({ calls: -5 })).toEqual({ ok: false, error: "calls" });
    const mine = limitsOf({ units: { constructor: 3 } });
    expect(carve(mine, NOTHING, WIDE, {}, 2)).toMatchObject({ value: { units: { constructor: 1 } } });
    expect(withoutChildren(mine, NOTHING).units["constructor"]).toBe(3);
  });
});

describe("a bucket that is settled", () => {
  it("is filled by the limits so far, up to their burst, and never by a clock that goes back", () => {
    const bucket = { tokens: 1, tokensAtMs: 1_000 };
    expect(settleBucket(bucket, LIMITS, 1_500)).toEqual({ tokens: 6, tokensAtMs: 1_500 });
    expect(settleBucket(bucket, LIMITS, 60_000)).toEqual({ tokens: 20, tokensAtMs: 60_000 });
    expect(settleBucket(bucket, LIMITS, 0)).toEqual(bucket);
  });
});

interface Node {
  readonly limits: Limits;
  readonly deadline: number;
  readonly children: Map<Node, Amounts>;
  used: { calls: number; bytes: number; units: Record<string, number> };
  spentBelow: Spent;
  running: number;
}

const mineOf = (node: Node) => withoutChildren(node.limits, [...node.children.values()].reduce(add, node.spentBelow));
const everyone = (node: Node): Node[] => [node, ...[...node.children.keys()].flatMap(everyone)];
const parentOf = (root: Node, node: Node) => everyone(root).find(({ children }) => children.has(node));

const amount = fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined });
const op = fc.record({
  act: fc.constantFrom("delegate", "delegate", "spend", "spend", "run", "end"),
  who: fc.nat(),
  asked: fc.record({ calls: amount, bytes: amount, concurrency: amount, burst: amount }, { requiredKeys: [] }),
  cents: fc.option(fc.double({ min: 0.001, max: 3, noNaN: true }), { nil: undefined }),
  places: fc.integer({ min: 1, max: 6 }),
  much: fc.integer({ min: 1, max: 40 }),
  /** An end that says nothing: its holder's children have not spoken. */
  deaf: fc.boolean(),
});

describe("over random trees", () => {
  it("nobody is given more than its parent could have used, and the tree never uses more than its root may", () => {
    fc.assert(
      fc.property(fc.array(op, { maxLength: 80 }), (ops) => {
        const node = (limits: Limits): Node => ({
          limits,
          deadline: 0,
          children: new Map(),
          used: { calls: 0, bytes: 0, units: {} },
          spentBelow: NOTHING,
          running: 0,
        });
        const root = node(LIMITS);
        let gone: Spent = NOTHING;
        for (const { act, who, asked, cents, places, much, deaf } of ops) {
          const all = everyone(root);
          const one = all[who % all.length]!;
          const mine = mineOf(one);
          const given = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
          if (act === "delegate") {
            const wanted = { ...given, ...(cents === undefined ? {} : { units: { cents } }) };
            const child = carve(mine, { ...one.used, concurrency: one.running }, WIDE, wanted, places);
            if (!child.ok) continue;
            for (const name of ["calls", "bytes", "concurrency", "burst", "callsPerSecond"] as const)
              expect(child.value[name]).toBeLessThanOrEqual(mine[name]);
            expect(child.value.units["cents"]).toBeLessThanOrEqual(mine.units["cents"]!);
            one.children.set(node(child.value), reservedOf(child.value, one.limits));
          } else if (act === "spend") {
            // As `reserve` would admit it.
            if (one.used.calls + 1 <= mine.calls) one.used.calls++;
            if (one.used.bytes + much <= mine.bytes) one.used.bytes += much;
            const spent = one.used.units["cents"] ?? 0;
            if (spent + much / 50 <= mine.units["cents"]!) one.used.units["cents"] = spent + much / 50;
          } else if (act === "run") {
            if (one.running + 1 <= mine.concurrency) one.running++;
          } else {
            const parent = parentOf(root, one);
            if (parent === undefined || (one.children.size > 0 && !deaf)) continue;
            // What it knows of: its own, that of children who have spoken, and all that the others may spend.
            const unknown = [...one.children.values()].reduce(
              (sum, reserved) => add(sum, spendable(reserved)),
              NOTHING,
            );
            parent.spentBelow = add(parent.spentBelow, add(add(one.used, one.spentBelow), unknown));
            parent.children.delete(one);
            // They are gone from this tree, and what they have spent was really spent.
            for (const lost of everyone(one)) gone = add(gone, lost.used);
          }
          const living = everyone(root);
          const spent = living.reduce((sum, { used }) => add(sum, used), gone);
          expect(spent.calls ?? 0).toBeLessThanOrEqual(LIMITS.calls);
          expect(spent.bytes ?? 0).toBeLessThanOrEqual(LIMITS.bytes);
          expect(spent.units["cents"] ?? 0).toBeLessThanOrEqual(5 + 1e-9);
          const sum = (of: (node: Node) => number) => living.reduce((all, one) => all + of(one), 0);
          expect(sum(({ running }) => running)).toBeLessThanOrEqual(LIMITS.concurrency);
          expect(sum((one) => mineOf(one).concurrency)).toBeLessThanOrEqual(LIMITS.concurrency);
          expect(sum((one) => mineOf(one).burst)).toBeLessThanOrEqual(LIMITS.burst);
          expect(sum((one) => mineOf(one).callsPerSecond)).toBeLessThanOrEqual(LIMITS.callsPerSecond + 1e-9);
        }
      }),
      { numRuns: 300 },
    );
  });
});
