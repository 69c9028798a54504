import { describe, expect, it } from "vitest";
import type { Limits } from "../../src/config/define.ts";
import { countBytes, reserve, type Usage, unused } from "../../src/instance/limits.ts";

const limits: Limits = {
  calls: 10,
  bytes: 1_000,
  units: { usd: 1 },
  concurrency: 4,
  burst: 5,
  callsPerSecond: 1,
  refusalsRecordedPerMinute: 60,
};
const want = { running: 0, waiting: 0, bytes: 0, leadBytes: 400, units: {}, nowMs: 0 };
const fresh = unused(limits, 0);

describe("what a call takes", () => {
  it("of the last bytes is a share for each call that may come beside it", () => {
    expect(reserve({ ...fresh, bytes: 200 }, limits, want)).toMatchObject({ ok: true, aheadBytes: 200 });
    expect(reserve({ ...fresh, bytes: 200 }, limits, { ...want, running: 3 })).toMatchObject({ aheadBytes: 400 });
    expect(reserve({ ...fresh, bytes: 999 }, limits, want)).toMatchObject({ ok: true, aheadBytes: 0 });
  });

  it("is nothing where all that is left is held by others, or spent", () => {
    const held = reserve({ ...fresh, bytes: 600, bytesAhead: 400 }, limits, want);
    expect(held).toMatchObject({ ok: false, denial: { kind: "limited", limit: "concurrency" } });
    const spent = reserve({ ...fresh, bytes: 990 }, limits, { ...want, bytes: 10 });
    expect(spent).toMatchObject({ ok: false, denial: { kind: "exhausted", budget: "bytes" } });
  });

  it.each<[string, Partial<Usage>, object]>([
    ["calls", { calls: Number.NaN }, { kind: "exhausted", budget: "calls" }],
    ["bytes", { bytes: Number.NaN }, { kind: "exhausted", budget: "bytes" }],
    ["bytes ahead", { bytesAhead: Number.NaN }, { kind: "limited", limit: "concurrency" }],
    ["bytes ahead, unknown", { bytesAhead: undefined as never }, { kind: "limited", limit: "concurrency" }],
    ["units", { units: { usd: Number.NaN } }, { kind: "exhausted", budget: "units.usd" }],
    ["tokens", { tokens: Number.NaN }, { kind: "limited", limit: "rate", retryAfterSeconds: 1 }],
  ])("of %s that are no number is nothing", (_name, broken, denial) => {
    expect(reserve({ ...fresh, ...broken }, limits, { ...want, units: { usd: 0.1 } })).toMatchObject({
      ok: false,
      denial,
    });
  });
});

describe("bytes that are counted", () => {
  it("are never more than there is, and leave to others what they hold", () => {
    const usage = { ...fresh, bytes: 500, bytesAhead: 300 };
    expect(countBytes(usage, limits, 100, 150)).toEqual({
      usage: { ...usage, bytes: 650, bytesAhead: 300 },
      aheadBytes: 100,
    });
    expect(countBytes(usage, limits, 100, 250)).toMatchObject({
      usage: { bytes: 750, bytesAhead: 250 },
      aheadBytes: 50,
    });
    expect(countBytes(usage, limits, 100, 301)).toEqual({
      usage: { ...usage, bytes: 800, bytesAhead: 200 },
      aheadBytes: null,
    });
  });

  it("of a usage that is no number are not covered", () => {
    expect(countBytes({ ...fresh, bytes: Number.NaN }, limits, 0, 1).aheadBytes).toBeNull();
    expect(countBytes({ ...fresh, bytesAhead: Number.NaN }, limits, 0, 1).aheadBytes).toBeNull();
  });
});
