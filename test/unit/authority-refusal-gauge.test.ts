import { describe, expect, it } from "vitest";
import { RECORDED_PER_SECOND, RefusalGauge } from "../../src/authority/refusal-gauge.ts";
import { journalPartition, segmentKey } from "../../src/transcript/layout.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";

const NOW_MS = 1_900_000_000_123;
const take = (gauge: RefusalGauge, times: number, nowMs: number) =>
  Array.from({ length: times }, () => gauge.take(nowMs));

describe("refusals of who has not authenticated", () => {
  it("go on record up to the bound of a second, and not one more", () =>
    expect(take(new RefusalGauge(), RECORDED_PER_SECOND + 2, NOW_MS)).toEqual([
      ...Array<number>(RECORDED_PER_SECOND).fill(0),
      null,
      null,
    ]));

  it.each<[name: string, offsetMs: number, taken: number | null]>([
    ["within the second", 999, null],
    ["a second later", 1_000, 3],
    ["an hour later", 3_600_000, 3],
    ["on a clock that stepped back", -60_000, 3],
  ])("carry what was counted, once: %s", (_name, offsetMs, taken) => {
    const gauge = new RefusalGauge();
    take(gauge, RECORDED_PER_SECOND + 3, NOW_MS);
    expect(gauge.take(NOW_MS + offsetMs)).toBe(taken);
    if (taken !== null) expect(gauge.take(NOW_MS + offsetMs)).toBe(0);
  });

  it("carry what went before and did not arrive", () => {
    const gauge = new RefusalGauge();
    gauge.take(NOW_MS);
    gauge.giveBack(1);
    expect([gauge.take(NOW_MS), gauge.take(NOW_MS)]).toEqual([1, 0]);
  });

  it.each([
    "admin-refused",
    "authority-refused",
    "signals-refused",
  ])("have a journal that the verifier knows: %s", (door) => {
    const key = segmentKey(journalPartition(door, "2026-11-22"), 0);
    expect(parseObjectKey(key)?.partition).toMatchObject({ kind: "journal", log: `${door}.2026-11-22` });
  });
});
