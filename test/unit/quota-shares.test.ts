import { describe, expect, it } from "vitest";
import { enterPeriod, type Share, settled, usedAt, withoutWorkers } from "../../src/quota/shares.ts";

const HOUR = 3_600_000;
const need = { calls: 1, bytes: 100, "units.usd": 1_000_000, concurrency: 1 };
const ticket = { name: "q.k", period: HOUR, need };
const running: Share = { period: HOUR, used: need };

describe("a call that is over", () => {
  it("gives back its place and the bytes it had ahead, and costs what it cost", () => {
    const used = { calls: 1, bytes: 0, "units.usd": 250_000, concurrency: 0 };
    expect(settled(running, ticket, { usd: 0.25 })).toEqual({ period: HOUR, used });
  });

  it("of which nobody knows what it cost gives back its place alone", () => {
    expect(settled(running, ticket, null).used).toEqual({ ...need, concurrency: 0 });
  });

  it("of an earlier period gives nothing to this one, and charges it what was beyond its reserve", () => {
    const entered = enterPeriod(running, 2 * HOUR);
    expect(entered).toEqual({ period: 2 * HOUR, used: { concurrency: 1 } });
    const busy = { ...entered, used: { ...entered.used, bytes: 500, "units.usd": 3_000_000 } };
    const charged = (usd: number) => settled(busy, ticket, { usd }).used;
    expect(charged(0.25)).toEqual({ bytes: 500, "units.usd": 3_000_000, concurrency: 0 });
    expect(charged(1.5)).toEqual({ bytes: 500, "units.usd": 3_500_000, concurrency: 0 });
  });

  it("enters no earlier period", () => expect(enterPeriod(running, 0)).toBe(running));
});

describe("calls without their Workers", () => {
  it("hold their places until those have cut, those of two lives together, and all else stays charged", () => {
    const once = withoutWorkers({ q: running }, 0, 30_000);
    const again = { q: { ...once["q"]!, used: { ...once["q"]!.used, concurrency: 2 } } };
    const { q } = withoutWorkers(again, 10_000, 40_000);
    expect([usedAt(q!, 39_999).concurrency, usedAt(q!, 40_000).concurrency]).toEqual([3, 0]);
    expect(q!.used).toEqual({ ...need, concurrency: 0 });
  });
});
