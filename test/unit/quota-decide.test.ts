import { describe, expect, it } from "vitest";
import { quota as quotaSchema } from "../../src/config/quotas.ts";
import type { LeaseAnswer, LeaseRequest, ShareReport } from "../../src/quota/contract.ts";
import { EMPTY, giveBack, type Holder, lease, type Totals } from "../../src/quota/decide.ts";
import { of, type Some } from "../../src/quota/dimensions.ts";
import { Random } from "../random.ts";

const ten = quotaSchema.parse({ per: "task", calls: 10 });
const request = (change: Partial<LeaseRequest> = {}): LeaseRequest => ({
  instance: "i",
  deadlineMs: 0,
  basis: null,
  period: 0,
  used: {},
  running: 0,
  least: { calls: 1 },
  need: { calls: 1 },
  ahead: {},
  ...change,
});
const nothing = { totals: EMPTY, holder: null, holders: 0 };

describe("a lease", () => {
  it("of what is not needed is nothing", () => {
    expect(lease(ten, nothing, request({ least: {}, need: {} }), 0).answer).toMatchObject({ granted: {}, short: null });
  });

  it("ahead of need is a part of what is left, and nothing of the last", () => {
    const ahead = { calls: 100 };
    expect(of(lease(ten, nothing, request({ ahead }), 0).answer.granted, "calls")).toBe(1 + 2);
    expect(of(lease(ten, { ...nothing, holders: 3 }, request({ ahead }), 0).answer.granted, "calls")).toBe(1);
  });

  it("is whole calls' worth, or nothing", () => {
    const units = quotaSchema.parse({ per: "task", units: { usd: 1 } });
    const asked = request({ least: { "units.usd": 400_000 }, need: { "units.usd": 1_200_000 } });
    const { answer, totals, holder } = lease(units, nothing, asked, 0);
    expect(answer).toMatchObject({ granted: { "units.usd": 800_000 }, short: { dimension: "units.usd" } });
    const again = lease(units, { totals, holder, holders: 1 }, { ...asked, basis: answer.version }, 0);
    expect(again.answer.granted).toEqual({ "units.usd": 800_000 });
  });

  it("that goes on from an older answer changes nothing, and is told the newest", () => {
    const first = lease(ten, nothing, request(), 0);
    const second = lease(ten, { ...first, holders: 1 }, request({ basis: 1, used: { calls: 1 } }), 0);
    const late = lease(ten, { ...second, holders: 1 }, request({ basis: 1, used: {} }), 0);
    expect([late.answer.version, late.answer.granted, late.answer.short]).toEqual([3, { calls: 2 }, null]);
    expect(late.holder.used).toEqual({ calls: 1 });
  });

  it("is no longer than its period", () => {
    const hourly = quotaSchema.parse({ per: "task", calls: 10, periodSeconds: 3_600 });
    expect(lease(hourly, nothing, request(), 3_600_000 - 5_000).answer).toMatchObject({ period: 0, validMs: 5_000 });
    expect(lease(hourly, nothing, request(), 3_600_000).answer).toMatchObject({ period: 3_600_000, validMs: 60_000 });
  });

  it("of a quota that has lost what it knew counts what its holders say that they have used", () => {
    const told = lease(ten, nothing, request({ basis: 7, used: { calls: 8 } }), 0);
    expect(told.answer).toMatchObject({ granted: { calls: 8 }, short: null });
    const need = { need: { calls: 3 } };
    const other = lease(ten, { ...told, holder: null, holders: 1 }, request({ instance: "j", ...need }), 0);
    expect(other.answer).toMatchObject({ granted: { calls: 2 }, short: { dimension: "calls" } });
  });

  it("of a period whose length was changed ends with one of the new length", () => {
    const HOUR = 3_600_000;
    const of = (periodSeconds: number) => quotaSchema.parse({ per: "task", calls: 1, periodSeconds });
    const [hourly, daily] = [of(3_600), of(86_400)];
    const first = lease(hourly, nothing, request(), 13 * HOUR);
    const short = (dayMs: number, quota: typeof daily) =>
      lease(quota, { ...first, holders: 1 }, request({ basis: 1, period: 13 * HOUR, used: { calls: 1 } }), dayMs).answer
        .short;
    expect(short(14 * HOUR, daily)).toEqual({ dimension: "calls", retryAfterSeconds: 10 * 3_600 });
    expect(short(24 * HOUR, daily)).toBeNull();
    const second = lease(daily, nothing, request(), 13 * HOUR);
    const again = lease(hourly, { ...second, holders: 1 }, request({ basis: 1, used: { calls: 1 } }), 13 * HOUR);
    expect(again.answer).toMatchObject({ period: 13 * HOUR, short: null });
  });

  it("of more than was granted is counted, and leaves nothing", () => {
    const first = lease(ten, nothing, request(), 0);
    const report = request({ basis: 1, used: { calls: 12 } });
    const { answer, totals } = lease(ten, { ...first, holders: 1 }, report, 0);
    expect(answer.short).toEqual({ dimension: "calls", retryAfterSeconds: null });
    expect(totals.used).toEqual({ calls: 12 });
  });
});

/** An instance as `durable-objects/shares.ts` is one: what it used is durable, what it holds is not. */
interface Model {
  readonly name: string;
  period: number;
  used: number;
  /** In every period. */
  readonly spent: Map<number, number>;
  granted: number | null;
  version: number | null;
  recalls: number;
}

/**
 * Questions, answers and recalls that are late, lost, or come in any order, objects that die at any moment, and a clock
 * that goes where it likes: never is more used in a period than there is, and when all is quiet, all of the rest is free.
 */
describe("over random histories", () => {
  for (let seed = 1; seed <= 60; seed++)
    it(`never more than the limit, and nothing is lost (${seed})`, () => {
      const random = new Random(seed);
      const next = (): number => random.next();
      const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!;
      const quota = quotaSchema.parse({ per: "task", calls: 10, ...(seed % 2 === 0 ? { periodSeconds: 60 } : {}) });
      let nowMs = 0;
      let totals: Totals = EMPTY;
      const holders = new Map<string, Holder>();
      const models = ["a", "b", "c"].map(
        (name): Model => ({ name, period: 0, used: 0, spent: new Map(), granted: null, version: null, recalls: 0 }),
      );
      /** On their way: each does what it does when it arrives. */
      let flying: (() => void)[] = [];
      const report = (model: Model): ShareReport => ({ period: model.period, used: { calls: model.used }, running: 0 });

      const ask = (model: Model): void => {
        const asked: LeaseRequest = {
          ...report(model),
          instance: model.name,
          deadlineMs: 0,
          basis: model.version,
          least: { calls: 1 },
          need: { calls: 1 + Math.floor(next() * 3) },
          ahead: { calls: Math.floor(next() * 20) },
        };
        const { recalls } = model;
        const life = lives.get(model.name);
        flying.push(() => {
          const state = { totals, holder: holders.get(model.name) ?? null, holders: holders.size };
          const leased = lease(quota, state, asked, nowMs);
          totals = leased.totals;
          holders.set(model.name, leased.holder);
          flying.push(() => {
            if (lives.get(model.name) === life && model.recalls === recalls) adopt(model, leased.answer);
          });
        });
      };
      const lives = new Map(models.map(({ name }) => [name, 0]));
      const adopt = (model: Model, answer: LeaseAnswer): void => {
        // The instance asks one question at a time; what is older than what it knows does not count.
        if (answer.period < model.period || (model.version !== null && answer.version < model.version)) return;
        if (answer.period > model.period) model.used = 0;
        model.period = answer.period;
        model.version = answer.version;
        model.granted = of(answer.granted as Some, "calls");
      };
      const recall = (model: Model): void => {
        const held = holders.get(model.name);
        if (held === undefined) return;
        flying.push(() => {
          model.granted = null;
          model.version = null;
          model.recalls++;
          const said = report(model);
          flying.push(() => {
            const holder = holders.get(model.name)!;
            if (holder.version !== held.version) return;
            const given = giveBack(quota, { totals, holder }, said, nowMs);
            totals = given.totals;
            holders.set(model.name, given.holder);
          });
        });
      };
      const use = (model: Model): void => {
        if (model.granted === null || model.used >= model.granted) return;
        model.used++;
        model.spent.set(model.period, (model.spent.get(model.period) ?? 0) + 1);
      };
      const die = (model: Model): void => {
        lives.set(model.name, lives.get(model.name)! + 1);
        model.granted = null;
        model.version = null;
      };
      const deliver = (): void => {
        const one = Math.floor(next() * flying.length);
        const [arrived] = flying.splice(one, 1);
        if (next() < 0.9) arrived?.();
      };
      for (let step = 0; step < 800; step++) {
        const model = pick(models);
        const what = next();
        if (what < 0.2) ask(model);
        else if (what < 0.3) recall(model);
        else if (what < 0.55) use(model);
        else if (what < 0.6) die(model);
        else if (what < 0.62) nowMs = Math.max(0, nowMs + Math.floor(next() * 60_000) - 25_000);
        else deliver();
        for (const period of new Set(models.flatMap((one) => [...one.spent.keys()]))) {
          const spent = models.reduce((sum, one) => sum + (one.spent.get(period) ?? 0), 0);
          expect(spent).toBeLessThanOrEqual(10);
        }
      }
      flying = [];
      for (const model of models) {
        recall(model);
        while (flying.length > 0) flying.shift()?.();
      }
      const spent = models.reduce((sum, one) => sum + (one.spent.get(totals.period) ?? 0), 0);
      expect([of(totals.granted, "calls"), of(totals.used, "calls")]).toEqual([spent, spent]);
    });
});
