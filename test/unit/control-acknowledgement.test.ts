import { describe, expect, it } from "vitest";
import { aged, type CloseAnswer, mergeReached, onClock, type Reached } from "../../src/control/acknowledgement.ts";

const NOW_MS = 1_900_000_000_000;
const said = (change: Partial<CloseAnswer> = {}): CloseAnswer => ({
  cut: 1,
  unconfirmed: 0,
  acknowledgedAgeMs: 10,
  lastByteAgeMs: 20,
  ...change,
});

describe("an age", () => {
  it("grows with the time that has passed since it was heard", () => {
    expect(aged(said(), 5)).toEqual(said({ acknowledgedAgeMs: 15, lastByteAgeMs: 25 }));
    expect(aged(said({ lastByteAgeMs: null }), 5).lastByteAgeMs).toBeNull();
  });

  it("is never negative, though the clock of who heard it stepped back", () =>
    expect(aged(said(), -1_000)).toEqual(said({ acknowledgedAgeMs: 0, lastByteAgeMs: 0 })));
});

describe("what is put on the switchboard's clock", () => {
  const acceptedAtMs = NOW_MS - 100;
  const at = (answer: CloseAnswer) => onClock(NOW_MS, acceptedAtMs, { instance: "i", answer, stoppedInMs: 7 }).answer;

  it("is as long ago as it was", () =>
    expect(onClock(NOW_MS, acceptedAtMs, { instance: "i", answer: said(), stoppedInMs: 7 })).toEqual({
      instance: "i",
      answer: { cut: 1, unconfirmed: 0, acknowledgedAtMs: NOW_MS - 10, lastByteAtMs: NOW_MS - 20 },
      stoppedByMs: NOW_MS + 7,
    }));

  it("was never acknowledged before it was accepted, though a clock on the way stepped forward", () =>
    expect(at(said({ acknowledgedAgeMs: 3_600_000 }))?.acknowledgedAtMs).toBe(acceptedAtMs));

  it("may have passed its last byte before that: a stream that had stalled", () =>
    expect(at(said({ lastByteAgeMs: 60_000 }))?.lastByteAtMs).toBe(NOW_MS - 60_000));

  it("is never ahead of that clock", () =>
    expect(at(said({ acknowledgedAgeMs: -50, lastByteAgeMs: -50 }))).toMatchObject({
      acknowledgedAtMs: NOW_MS,
      lastByteAtMs: NOW_MS,
    }));
});

describe("another push", () => {
  const reached = (unconfirmed: number, acknowledgedAtMs: number, lastByteAtMs: number | null): Reached => ({
    instance: "i",
    answer: { cut: 1, unconfirmed, acknowledgedAtMs, lastByteAtMs },
    stoppedByMs: NOW_MS,
  });

  it.each<[string, before: number | null, now: number | null, expected: number | null]>([
    ["of an object that was reset, and forgot", 5, null, 5],
    ["of a call that had not confirmed", null, 9, 9],
    ["of a later byte", 5, 9, 9],
    ["of an earlier one", 9, 5, 9],
    ["of none", null, null, null],
  ])("takes back no byte that had passed: %s", (_name, before, now, expected) =>
    expect(mergeReached([reached(1, 10, before)], [reached(0, 20, now)])).toEqual([reached(0, 20, expected)]));
});
