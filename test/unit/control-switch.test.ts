import { describe, expect, it } from "vitest";
import { isSilent, mergeReached, type Reached, SILENT_WORKER_CUT_MS } from "../../src/control/acknowledgement.ts";

const NOW_MS = 1_900_000_000_000;
const missed = (stoppedByMs = NOW_MS): Reached => ({ instance: "i", answer: null, stoppedByMs });
const answered = (cut: number, unconfirmed: number, acknowledgedAtMs = NOW_MS): Reached => ({
  instance: "i",
  answer: { cut, unconfirmed, acknowledgedAtMs, lastByteAtMs: null },
  stoppedByMs: NOW_MS,
});

describe("an instance in reach of a kill", () => {
  it.each<[name: string, one: Reached, offsetMs: number, expected: boolean]>([
    ["did not answer, and its confirmation runs", missed(), -1, false],
    ["did not answer, and its calls may still run", missed(), SILENT_WORKER_CUT_MS - 1, false],
    ["did not answer, and its calls have ended, too", missed(), SILENT_WORKER_CUT_MS, true],
    ["confirmed every cut", answered(3, 0), 0, true],
    ["had nothing to cut", answered(0, 0), 0, true],
    ["has one call unconfirmed", answered(3, 1), 0, false],
    ["has one unconfirmed, whose Worker may still run", answered(3, 1), SILENT_WORKER_CUT_MS - 1, false],
    ["has one unconfirmed, whose Worker has cut by itself", answered(3, 1), SILENT_WORKER_CUT_MS, true],
  ])("%s", (_name, one, offsetMs, expected) => expect(isSilent(one, NOW_MS + offsetMs)).toBe(expected));

  it.each<[name: string, before: Reached[], now: Reached[], expected: Reached[]]>([
    ["nobody", [], [], []],
    ["a first answer", [], [answered(2, 1)], [answered(2, 1)]],
    ["an answer at last", [missed()], [answered(2, 1)], [answered(2, 1)]],
    ["still none", [missed(1)], [missed(2)], [missed(2)]],
    ["a confirmation that ran longer", [missed(2)], [missed(1)], [missed(2)]],
    ["none any more", [answered(2, 1)], [missed()], [answered(2, 1)]],
    ["left the roster", [answered(2, 1)], [], [answered(2, 1)]],
    [
      "the later time counts, and no cut is lost",
      [answered(2, 1)],
      [answered(0, 0, NOW_MS + 9)],
      [answered(2, 0, NOW_MS + 9)],
    ],
    ["what was confirmed stays so", [answered(2, 0)], [answered(0, 1, NOW_MS + 9)], [answered(2, 0)]],
  ])("is known after another push: %s", (_name, before, now, expected) =>
    expect(mergeReached(before, now)).toEqual(expected));
});
