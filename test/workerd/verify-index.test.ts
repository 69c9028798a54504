import { describe, expect, it } from "vitest";
import type { Seal } from "../../src/transcript/seal.ts";
import { indexJournalName, parseIndexName, parseIndexPath } from "../../src/transcript/segment-index.ts";
import { type CopyScope, INDEX_GRACE_MS, IndexReader } from "../../src/transcript/verify-index.ts";
import { type Partition, parseObjectKey } from "../../src/transcript/verify-layout.ts";

const AT = Date.UTC(2026, 10, 22, 15, 30);
const JOURNAL = "transcripts/journal=segments/day=2026-11-22/hour=15/shard=003/0000000000.jsonl.gz";
const HEAD = "a".repeat(64);
const WHOLE: CopyScope = { untilMs: null };

const partitionOf = (key: string): Partition => parseObjectKey(key)!.partition;
const keyOf = (instance: string, first: number): string =>
  `transcripts/human=h/task=t/instance=${instance}/${String(first).padStart(10, "0")}.jsonl.gz`;
const entry = (instance: string, first: number, change: object = {}) => ({
  at: AT,
  log: instance,
  human: "h",
  task: "t",
  partition: `human=h/task=t/instance=${instance}`,
  first,
  last: first + 1,
  head: HEAD,
  from: AT - 1_000,
  to: AT,
  final: false,
  bodies: 0,
  ...change,
});
const seal = (first: number, change: Partial<Seal> = {}) =>
  ({ first, last: first + 1, head: HEAD, final: false, ...change }) as Seal;

/** What is found, as `place: problem`, of entries in one journal and of segments by key; null: one that does not verify. */
function held(
  scopes: readonly CopyScope[],
  entries: readonly object[],
  segments: Readonly<Record<string, Seal | null>>,
  { journal = JOURNAL, type = "stored" as const }: { journal?: string; type?: "stored" | "read" } = {},
): string[] {
  const reader = new IndexReader(scopes);
  for (const [key, one] of Object.entries(segments)) reader.readSegment(partitionOf(key), key, one);
  for (const [seq, envelope] of entries.entries())
    reader.readRecord(partitionOf(journal), {
      place: `line ${seq + 1}`,
      type,
      seq,
      at: 0,
      envelope: envelope as never,
    });
  const { of, stray } = reader.finish();
  return [...stray, ...[...of.values()].flat()].map(({ place, problem }) => `${place}: ${problem}`);
}

describe("the place of a journal of the index", () => {
  it("is told by its hour and shard, and by nothing that is none", () => {
    expect(partitionOf(JOURNAL)).toEqual({
      path: "journal=segments/day=2026-11-22/hour=15/shard=003",
      kind: "journal",
      log: "segments.2026-11-22T15.003",
      ids: { journal: "segments.2026-11-22T15.003" },
      deadlineMs: Date.UTC(2026, 10, 23, 16),
    });
    expect(indexJournalName(AT, 3)).toBe("segments.2026-11-22T15.003");
    for (const odd of ["2026-02-30T15.003", "2026-11-22T24.003", "2026-11-22T15.3", "2026-11-22", "2026-11-22T15.003."])
      expect(parseIndexName(`segments.${odd}`), odd).toBeUndefined();
    for (const odd of ["day=2026-11-22", "day=2026-11-31/hour=15/shard=003", "day=2026-11-22/hour=15/shard=3"])
      expect(parseIndexPath(`journal=segments/${odd}`), odd).toBeUndefined();
    expect(parseObjectKey("transcripts/journal=segments/day=2026-11-22/0000000000.jsonl.gz")).toBeUndefined();
    expect(parseObjectKey(JOURNAL.replace("segments/", "admin/"))).toBeUndefined();
  });
});

describe("what the index names", () => {
  it("is here as it was named, once or twice", () => {
    expect(held([WHOLE], [entry("i", 0), entry("i", 0, { at: AT + 5 })], { [keyOf("i", 0)]: seal(0) })).toEqual([]);
  });

  it.each<[name: string, seal: Seal | null, problem: string[]]>([
    [
      "another head",
      seal(0, { head: "b".repeat(64) }),
      ["another segment than the index names: its head differs (line 1)"],
    ],
    ["another end", seal(0, { last: 7 }), ["another segment than the index names: its end differs (line 1)"]],
    [
      "an end that it was not",
      seal(0, { final: true }),
      ["another segment than the index names: its end differs (line 1)"],
    ],
    ["no seal that verifies, which is found elsewhere", null, []],
  ])("%s", (_name, one, problems) => {
    // Whatever the copy is of.
    for (const scopes of [[WHOLE], []])
      expect(held(scopes, [entry("i", 0)], { [keyOf("i", 0)]: one })).toEqual(
        problems.map((problem) => `${keyOf("i", 0)}: ${problem}`),
      );
  });

  it("and is missing", () => {
    const entries = [entry("i", 0), entry("i", 2), entry("j", 0), entry("j", 2)];
    expect(held([WHOLE], entries, { [keyOf("i", 0)]: seal(0) })).toEqual([
      `${keyOf("j", 0)}: a whole transcript is missing: the index names it (line 3) and 1 more`,
      `${keyOf("i", 2)}: missing: the index names it (line 2)`,
    ]);
  });

  it.each<[name: string, scope: CopyScope | null, isMissed: boolean]>([
    ["a copy of nobody knows what", null, false],
    ["everything", WHOLE, true],
    ["its human", { untilMs: null, human: "h" }, true],
    ["another human", { untilMs: null, human: "g" }, false],
    ["its task, of another instance", { untilMs: null, task: "t", instance: "j" }, false],
    ["its first millisecond", { untilMs: null, fromMs: 0, toMs: AT - 1_000 }, true],
    ["the one before", { untilMs: null, fromMs: 0, toMs: AT - 1_001 }, false],
    ["its last millisecond", { untilMs: null, fromMs: AT, toMs: AT + 1 }, true],
    ["the one after", { untilMs: null, fromMs: AT + 1, toMs: AT + 9 }, false],
    ["an earlier copy, made then", { untilMs: AT }, true],
    ["an earlier copy, made before", { untilMs: AT - 1 }, false],
  ])("is missed in a copy of %s: %#", (_name, scope, isMissed) => {
    expect(held(scope === null ? [] : [scope], [entry("i", 0)], {})).toHaveLength(isMissed ? 1 : 0);
  });

  it("of a span is the whole transcript, where any of it is in the span", () => {
    const entries = [entry("i", 0), entry("i", 2, { from: AT + 60_000, to: AT + 60_001 })];
    const scope = { untilMs: null, fromMs: AT, toMs: AT };
    expect(held([scope], entries, { [keyOf("i", 0)]: seal(0) })).toEqual([
      `${keyOf("i", 2)}: missing: the index names it (line 2)`,
    ]);
  });
});

describe("a segment that no index names", () => {
  const old = seal(0, { at: AT });
  const young = (afterMs: number) => ({ [keyOf("j", 0)]: seal(0, { at: AT + afterMs }) });
  const named = [entry("j", 0)];
  const missed = [`${keyOf("i", 0)}: no index names it`];

  it.each<[name: string, scopes: CopyScope[], afterMs: number, problems: string[]]>([
    ["is a finding in a copy of everything", [WHOLE], INDEX_GRACE_MS, missed],
    ["is none while the index may not have left", [WHOLE], INDEX_GRACE_MS - 1, []],
    ["is a finding in what was copied as everything, then", [{ untilMs: AT }], INDEX_GRACE_MS, missed],
    ["is none in a copy of somebody", [{ untilMs: null, human: "h" }], INDEX_GRACE_MS, []],
    ["is none in a copy of a span", [{ untilMs: null, fromMs: 0, toMs: AT }], INDEX_GRACE_MS, []],
    ["is none in a copy of nobody knows what", [], INDEX_GRACE_MS, []],
  ])("%s", (_name, scopes, afterMs, problems) => {
    expect(held(scopes, named, { [keyOf("i", 0)]: old, ...young(afterMs) })).toEqual(problems);
  });

  it("is a finding where the index has another of its transcript, or none at all", () => {
    expect(held([WHOLE], [entry("i", 2), ...named], { [keyOf("i", 0)]: old, ...young(INDEX_GRACE_MS) })).toEqual(
      [`${keyOf("i", 2)}: a whole transcript is missing: the index names it (line 1)`, ...missed].sort().reverse(),
    );
    expect(held([WHOLE], [], { [keyOf("i", 0)]: old, ...young(INDEX_GRACE_MS) })).toEqual(missed);
  });

  it("and is young is told", () => {
    const reader = new IndexReader([WHOLE]);
    reader.readSegment(partitionOf(keyOf("i", 0)), keyOf("i", 0), old);
    expect(reader.finish()).toMatchObject({ stray: [], unnamed: [keyOf("i", 0)] });
  });
});

describe("a journal of a day", () => {
  const key = "transcripts/journal=admin/day=2026-11-22/0000000000.jsonl.gz";
  const day = { log: "admin.2026-11-22", human: null, task: null, partition: "journal=admin/day=2026-11-22" };
  const ofDay = (change: object = {}) => entry("", 0, { ...day, ...change });

  it("is here as it was named", () => {
    expect(held([WHOLE], [ofDay()], { [key]: seal(0) })).toEqual([]);
    expect(held([WHOLE], [ofDay()], { [key]: seal(0, { head: "b".repeat(64) }) })).toEqual([
      `${key}: another segment than the index names: its head differs (line 1)`,
    ]);
  });

  it("is missed in a copy of everything, and in none of one human", () => {
    const missed = [`${key}: a whole journal is missing: the index names it (line 1)`];
    expect(held([WHOLE], [ofDay()], {})).toEqual(missed);
    expect(held([{ untilMs: null, human: "h" }], [ofDay()], {})).toEqual([]);
  });

  it.each([
    ["of another day", { partition: "journal=admin/day=2026-11-23" }],
    ["of a human", { human: "h" }],
    ["of no door", { log: "admin" }],
  ])("is not named by an entry %s", (_name, change) => {
    expect(held([], [ofDay(change)], {})).toEqual(["line 1: its partition is not that of its ids"]);
  });
});

describe("what the index must not hold", () => {
  it.each<[name: string, entries: object[], more: Parameters<typeof held>[3], problem: string]>([
    [
      "two of one place",
      [entry("i", 0), entry("i", 0, { head: "b".repeat(64) })],
      {},
      `line 2: names ${keyOf("i", 0)} otherwise than line 1`,
    ],
    ["half an entry", [{ ...entry("i", 0), head: "x" }], {}, "line 1: not an entry of the index: head"],
    ["ids of another place", [entry("i", 0, { human: "g" })], {}, "line 1: its partition is not that of its ids"],
    ["another record", [{}], { type: "read" }, "line 1: a record of type read in the index of segments"],
    [
      "an entry elsewhere",
      [entry("i", 0)],
      { journal: "transcripts/journal=admin/day=2026-11-22/0000000000.jsonl.gz" },
      "line 1: names a segment, and is not in the index of segments",
    ],
  ])("%s", (_name, entries, more, problem) => {
    expect(held([], entries, {}, more)).toEqual([problem]);
  });
});
