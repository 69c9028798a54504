import { describe, expect, it } from "vitest";
import type { Mandate } from "../../src/mandate/contract.ts";
import { latestDeadlineMs, whyUnusable, whyUsedUp } from "../../src/mandate/decide.ts";
import { dayOf, isWithin, type Schedule, schedule } from "../../src/mandate/schedule.ts";

const parse = (source: object): Schedule => schedule.parse(source);
const at = (text: string): number => Date.parse(text);

const OFFICE = parse({
  timeZone: "Europe/Vienna",
  days: ["mon", "tue", "wed", "thu", "fri"],
  from: "08:00",
  to: "18:00",
});
const NIGHT = parse({ timeZone: "Europe/Vienna", days: ["fri"], from: "22:00", to: "06:00" });
const EARLY = parse({ timeZone: "Europe/Vienna", from: "02:00", to: "03:00" });
const NEW_YORK = parse({ timeZone: "America/New_York", days: ["sun"], from: "01:00", to: "02:00" });
const ALL_DAY = parse({ timeZone: "UTC", days: ["sun"] });

describe("a schedule", () => {
  it.each<[name: string, schedule: Schedule, now: string, expected: boolean]>([
    ["the second before it opens", OFFICE, "2026-11-23T06:59:59.999Z", false],
    ["the second it opens", OFFICE, "2026-11-23T07:00:00Z", true],
    ["the last second of it", OFFICE, "2026-11-23T16:59:59.999Z", true],
    ["the second it closes", OFFICE, "2026-11-23T17:00:00Z", false],
    ["another day, at the same hour", OFFICE, "2026-11-22T09:00:00Z", false],
    ["by the clock there, in summer", OFFICE, "2026-07-06T06:00:00Z", true],
    ["and not by the clock of winter", OFFICE, "2026-07-06T16:30:00Z", false],
    ["over midnight: before midnight on its day", NIGHT, "2026-11-20T22:30:00Z", true],
    ["over midnight: after midnight, on the next", NIGHT, "2026-11-21T04:59:59Z", true],
    ["over midnight: when it closes", NIGHT, "2026-11-21T05:00:00Z", false],
    ["over midnight: the evening of the next day", NIGHT, "2026-11-21T21:30:00Z", false],
    ["over midnight: the morning of its own day", NIGHT, "2026-11-20T02:00:00Z", false],
    // Clocks go from 02:00 to 03:00 at 01:00 UTC on 2026-03-29, and back at 01:00 UTC on 2026-10-25.
    ["before the hour that is left out", EARLY, "2026-03-29T00:59:59.999Z", false],
    ["where that hour would be", EARLY, "2026-03-29T01:00:00Z", false],
    ["in the middle of where it would be", EARLY, "2026-03-29T01:30:00Z", false],
    ["the day before the gap", EARLY, "2026-03-28T01:30:00Z", true],
    ["the hour that comes twice, once", EARLY, "2026-10-25T00:30:00Z", true],
    ["the hour that comes twice, again", EARLY, "2026-10-25T01:30:00Z", true],
    ["after both", EARLY, "2026-10-25T02:00:00Z", false],
    ["another zone: the hour that comes twice", NEW_YORK, "2026-11-01T06:59:59Z", true],
    ["another zone: after both", NEW_YORK, "2026-11-01T07:00:00Z", false],
    ["all day, its first moment", ALL_DAY, "2026-11-22T00:00:00Z", true],
    ["all day, its last moment", ALL_DAY, "2026-11-22T23:59:59.999Z", true],
    ["all day, the next day", ALL_DAY, "2026-11-23T00:00:00Z", false],
  ])("%s", (_name, one, now, expected) => expect(isWithin(one, at(now))).toBe(expected));

  it("that can't be read opens nothing", () => {
    const nowMs = at("2026-11-22T12:00:00Z");
    for (const spoilt of [{ timeZone: "Mars/Olympus" }, { days: [] }, { from: "x", to: "y" }])
      expect(isWithin({ ...ALL_DAY, ...spoilt } as Schedule, nowMs)).toBe(false);
    expect(isWithin(ALL_DAY, Number.NaN)).toBe(false);
  });

  it.each([
    [{}, "timeZone"],
    [{ timeZone: "Mars/Olympus" }, "timeZone"],
    [{ timeZone: "+01:00" }, "timeZone"],
    [{ timeZone: "UTC", days: [] }, "days"],
    [{ timeZone: "UTC", days: ["mon", "mon"] }, "days"],
    [{ timeZone: "UTC", days: ["monday"] }, "days"],
    [{ timeZone: "UTC", from: "24:00" }, "from"],
    [{ timeZone: "UTC", from: "8:00" }, "from"],
    [{ timeZone: "UTC", from: "08:00", to: "08:00" }, "to"],
    [{ timeZone: "UTC", to: "24:01" }, "to"],
    [{ timeZone: "UTC", until: "08:00" }, ""],
  ])("is refused: %j", (source, path) => {
    const parsed = schedule.safeParse(source);
    expect(parsed.success).toBe(false);
    expect(parsed.error?.issues[0]?.path.join(".").split(".")[0]).toBe(path);
  });

  it("counts a day by the clock there", () => {
    expect(dayOf(OFFICE, at("2026-11-22T22:59:59Z"))).toBe("2026-11-22");
    expect(dayOf(OFFICE, at("2026-11-22T23:00:00Z"))).toBe("2026-11-23");
    expect(dayOf(null, at("2026-11-22T23:30:00Z"))).toBe("2026-11-22");
  });
});

describe("a mandate", () => {
  const mandate = { notBeforeMs: 1_000, expiresAtMs: 9_000, schedule: null, taskSeconds: 2, maxUses: 3, perDay: 2 };
  const of = (change: object = {}) => ({ ...mandate, ...change }) as unknown as Mandate;
  const why = (nowMs: number, change: object = {}) => whyUnusable({ mandate: of(change), revoked: null }, nowMs);

  it("is good from its first moment until just before its end", () => {
    expect([999, 1_000, 8_999, 9_000].map((nowMs) => why(nowMs))).toEqual(["not yet", null, null, "expired"]);
  });
  it("is not good when it was revoked, whatever else", () => {
    const revoked = { atMs: 1, by: "b", reason: "r", switch: null };
    expect(whyUnusable({ mandate: of(), revoked }, 2_000)).toBe("revoked");
  });
  it("is not good outside of its schedule", () => {
    expect(why(2_000, { schedule: { ...ALL_DAY, days: ["mon"] } })).toBe("outside of its schedule");
  });
  it("bounds a deadline by its own end, and by what a task may last", () => {
    expect([latestDeadlineMs(of(), 1_000), latestDeadlineMs(of(), 8_000)]).toEqual([3_000, 9_000]);
  });
  it("has so many uses, and so many a day", () => {
    expect([whyUsedUp(of(), 2, 1), whyUsedUp(of(), 3, 0), whyUsedUp(of(), 2, 2)]).toEqual([
      null,
      "its uses are spent",
      "the uses of this day are spent",
    ]);
    expect(whyUsedUp(of({ maxUses: null, perDay: null }), 1e9, 1e9)).toBeNull();
  });
});
