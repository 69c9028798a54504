import { describe, expect, it } from "vitest";
import type { HeldSubject } from "../../src/retention/contract.ts";
import {
  bodiesPrefix,
  type Extent,
  extentOf,
  forbids,
  holds,
  isMeant,
  judge,
  NOBODY,
  parseBodiesKey,
  UNHEARD,
} from "../../src/retention/cover.ts";
import { bodiesKey, instancePartition, rawBodyKey } from "../../src/transcript/layout.ts";

const HUMAN: HeldSubject = { kind: "human", id: "h" };
const TASK: HeldSubject = { kind: "task", id: "t" };
const ALL: HeldSubject = { kind: "everything" };

const at = (fromSeq: number, more: Partial<Extent> = {}): Extent => ({
  fromSeq,
  running: [],
  isExact: true,
  ...more,
});

describe("a hold", () => {
  it.each<[subject: HeldSubject, human: string, task: string, isHeld: boolean]>([
    [HUMAN, "h", "t", true],
    [HUMAN, "h2", "t", false],
    [HUMAN, "t", "h", false],
    [TASK, "x", "t", true],
    [TASK, "t", "x", false],
    [ALL, "x", "y", true],
  ])("%j keeps %s in %s: %s", (subject, human, task, isHeld) => {
    expect(holds(subject, human, task)).toBe(isHeld);
  });

  it.each<[subject: HeldSubject, human: string, task: string | null, isForbidden: boolean]>([
    [HUMAN, "h", null, true],
    [HUMAN, "h", "t", true],
    [HUMAN, "x", null, false],
    [TASK, "h", "t", true],
    [TASK, "h", "x", false],
    // The rest of the human's bodies goes; those of the task stay, key by key.
    [TASK, "h", null, false],
    [ALL, "x", null, true],
    [ALL, "x", "y", true],
  ])("%j forbids the erasure of %s, %s: %s", (subject, human, task, isForbidden) => {
    expect(forbids(subject, { human, task })).toBe(isForbidden);
  });
});

describe("an erasure's keys", () => {
  const partition = instancePartition({ human: "h", task: "t", instance: "i" });
  it("begin with the human, or the task, and end at its name", () => {
    expect(bodiesPrefix({ human: "h", task: null })).toBe("bodies/human=h/");
    expect(bodiesPrefix({ human: "h", task: "t" })).toBe("bodies/human=h/task=t/");
  });

  it.each<[key: string, parsed: ReturnType<typeof parseBodiesKey>]>([
    [bodiesKey(partition, 7, 0), { task: "t", instance: "i", seq: 7, isRaw: false }],
    [bodiesKey(partition, 7, 12), { task: "t", instance: "i", seq: 7, isRaw: false }],
    [rawBodyKey(partition, 7, "answer", 3), { task: "t", instance: "i", seq: 7, isRaw: true }],
    [`bodies/${partition}/notes.txt`, { task: "t", instance: "i", seq: null, isRaw: false }],
    [`bodies/${partition}/a/0000000007.jsonl.gz`, undefined],
    ["bodies/human=h/stray", undefined],
    [`transcripts/${partition}/0000000007.jsonl.gz`, undefined],
  ])("%s", (key, parsed) => {
    expect(parseBodiesKey(key)).toEqual(parsed);
  });
});

describe("an object is judged", () => {
  const BEFORE_MS = 10_000_000;
  const volume = { task: "t", instance: "i", seq: 5, isRaw: false };
  const raw = { ...volume, isRaw: true };
  const stray = { ...volume, seq: null };
  it.each<[object: typeof volume | typeof stray, extent: Extent, ageMs: number, verdict: string]>([
    [volume, at(9), 3_600_000, "take"],
    // So young that its last lines may be later: it is read.
    [volume, at(9), 59_999, "look"],
    [volume, at(9), 60_000, "take"],
    [volume, at(9), -1, "look"],
    [volume, at(9, { running: [6] }), 9_000_000, "look"],
    [volume, at(5), 60_000, "keep"],
    [raw, at(5), 60_000, "keep"],
    [raw, at(6), 0, "take"],
    [raw, at(6), -60_000, "take"],
    [raw, at(6, { running: [5] }), 60_000, "keep"],
    [volume, NOBODY, -60_000, "take"],
    [volume, UNHEARD, 3_599_999, "later"],
    [volume, UNHEARD, 3_600_000, "take"],
    [raw, at(9, { isExact: false }), 3_599_999, "later"],
    [stray, UNHEARD, 0, "take"],
    [stray, UNHEARD, -1, "later"],
  ])("%j by %j, %d ms old: %s", (object, extent, ageMs, verdict) => {
    expect(judge(object, extent, BEFORE_MS - ageMs, BEFORE_MS)).toBe(verdict);
  });

  it("and a line of it by its record alone", () => {
    expect([4, 5, 6].map((seq) => isMeant(seq, at(6, { running: [4] })))).toEqual([false, true, false]);
  });
});

describe("how far an erasure reaches in a log", () => {
  const row = (seq: number, at: number, answers: number | null = null) => ({ seq, at, answers });
  const reach = (
    rows: ReturnType<typeof row>[],
    dropped: { readonly lastSeq: number; readonly sealedAtMs: number } | null = null,
    open: readonly number[] = [],
  ): Extent => extentOf(rows, dropped, { beforeMs: 100, open, nextSeq: 9 });

  it.each<[string, Extent, Extent]>([
    ["an empty log", reach([]), at(9)],
    ["all of it is older", reach([row(0, 50), row(1, 100)]), at(9)],
    ["up to the first that is later", reach([row(0, 50), row(1, 101), row(2, 99)]), at(1)],
    ["a call that was answered later", reach([row(0, 50), row(1, 60), row(2, 101, 1)]), at(2, { running: [1] })],
    ["a call that runs", reach([row(0, 50), row(1, 60)], null, [1]), at(9, { running: [1] })],
    ["what is gone was sealed before", reach([], { lastSeq: 8, sealedAtMs: 100 }), at(9)],
    ["and after", reach([], { lastSeq: 8, sealedAtMs: 101 }), at(9, { isExact: false })],
    [
      "and more is gone than that seal covers",
      reach([row(5, 101)], { lastSeq: 3, sealedAtMs: 9 }),
      at(5, { isExact: false }),
    ],
    ["and nothing more", reach([row(4, 101)], { lastSeq: 3, sealedAtMs: 9 }), at(4)],
    ["the oldest that is here is older", reach([row(5, 100), row(6, 101)]), at(6)],
  ])("%s", (_name, extent, expected) => {
    expect(extent).toEqual(expected);
  });
});
