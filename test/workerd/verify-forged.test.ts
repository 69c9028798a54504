// Records that a gate has really written, changed by somebody who can seal them anew, or by a gate that is wrong: seals and chain
// hold, and what the records say of each other does not.

import { beforeAll, describe, expect, it } from "vitest";
import { type Forged, forge, recordsIn } from "../unit/forge-kit.ts";
import { findingsOf } from "../unit/transcript-kit.ts";
import { partitionOf, type Story, verify, writeStory } from "./forged-story.ts";
import { deployment } from "./kit.ts";

let story: Story;
beforeAll(async () => {
  story = await writeStory();
}, 60_000);

/** `seq 3: what is wrong`, of one transcript or of all. */
async function found(id: string, change: (records: Forged[]) => readonly Forged[], bodies = true): Promise<string[]> {
  const report = await verify(forge(story.objects, partitionOf(id), deployment.sealKeys, change), bodies);
  return findingsOf(report).map(
    ({ place, problem }) => `${/\(seq \d+/.exec(place)?.[0].slice(1) ?? place}: ${problem}`,
  );
}

const indexOf = (records: readonly Forged[], type: string, nth = 0): number =>
  records.flatMap((record, i) => (record["type"] === type ? [i] : []))[nth]!;

/** Changes a member of one record. */
const set =
  (type: string, path: readonly (string | number)[], to: unknown, nth = 0) =>
  (records: Forged[]): Forged[] => {
    let at = records[indexOf(records, type, nth)]!;
    for (const name of path.slice(0, -1)) at = at[name];
    const name = path.at(-1)!;
    if (!(name in at) && to === undefined) throw new Error(`no ${path.join(".")} in ${type}`);
    at[name] = typeof to === "function" ? to(at[name]) : to;
    return records;
  };

/** References to later records follow. */
function shifted(records: readonly Forged[], from: number, by: number): Forged[] {
  return records.map((record) =>
    record["type"] === "answer" && record["call"] >= from ? { ...record, call: record["call"] + by } : record,
  );
}
const drop =
  (type: string, nth = 0) =>
  (records: Forged[]) => {
    const at = indexOf(records, type, nth);
    return shifted(records.toSpliced(at, 1), at, -1);
  };
const insert =
  (at: (records: readonly Forged[]) => number, make: (records: readonly Forged[]) => Forged) => (records: Forged[]) => {
    const place = at(records);
    return shifted(records, place, 1).toSpliced(place, 0, make(records));
  };

describe("what a gate has written", () => {
  it("verifies, forged into one segment or not, and all of it was held to something", async () => {
    const types = [story.worker, story.killed, story.parent, story.child].flatMap((id) =>
      recordsIn(story.objects, partitionOf(id)).map(({ type }) => type),
    );
    for (const type of ["enrolled", "call", "answer", "approval", "switched", "refused", "delegated", "ended"])
      expect(types).toContain(type);
    const report = await verify(story.objects);
    expect(findingsOf(report)).toEqual([]);
    expect(report.transcripts.map(({ status }) => status)).toEqual(["ended", "ended", "ended", "ended"]);
    expect(report.transcripts.map((one) => one.parent).sort()).toEqual(["held", "none", "none", "none"]);
    expect(report.transcripts.map(({ uncheckedCalls }) => uncheckedCalls)).toEqual([[], [], [], []]);
    for (const id of [story.worker, story.killed, story.parent, story.child])
      expect(await found(id, (records) => records)).toEqual([]);
  });

  it("says of calls whose scope speaks of their body, where no body is here, that they were not checked", async () => {
    const { transcripts, ok: isOk } = await verify(story.objects, false);
    expect(isOk).toBe(true);
    const models = recordsIn(story.objects, partitionOf(story.worker)).filter(
      ({ type, upstream: to }) => type === "call" && to === "model",
    );
    const report = transcripts.find(({ partition }) => partition === partitionOf(story.worker))!;
    expect(report.uncheckedCalls).toEqual(models.map(({ seq }) => seq));
    expect(models).toHaveLength(3);
  });
});

type Row = readonly [
  name: string,
  who: "worker" | "killed" | "parent" | "child",
  change: (records: Forged[]) => readonly Forged[],
  problem: RegExp,
];
const rows: readonly Row[] = [
  ["an answer that is dropped", "worker", drop("answer"), /a call without an answer, and the transcript ended/],
  [
    "an answer that is doubled",
    "worker",
    (records) => {
      const at = indexOf(records, "answer");
      return insert(
        () => at + 1,
        () => records[at]!,
      )(records);
    },
    /a second answer to the call of seq 1/,
  ],
  [
    "answers of two calls, swapped",
    "worker",
    (records) => {
      const [a, b] = [records[indexOf(records, "answer")]!, records[indexOf(records, "answer", 1)]!];
      [a["call"], b["call"]] = [b["call"], a["call"]];
      return records;
    },
    /which is no call before it|not the digest of|without an answer/,
  ],
  [
    "what two answers say, swapped",
    "worker",
    (records) => {
      const [a, b] = [indexOf(records, "answer"), indexOf(records, "answer", 1)];
      const [one, other] = [records[a]!, records[b]!];
      return records.with(a, { ...other, call: one["call"] }).with(b, { ...one, call: other["call"] });
    },
    /altered: not the digest of/,
  ],
  ["a call that is dropped", "worker", drop("call"), /answers seq|calls is 6, and the records say 5/],
  [
    "units that an answer says less of",
    "worker",
    set("answer", ["units", "usd", "charged"], 0, 2),
    /usd is .*, and the records say/,
  ],
  [
    "units charged by a reserve that was another",
    "worker",
    set("answer", ["units", "usd", "charged"], 0.01, 3),
    /charges 0.01 of usd by its reserve, which is 0.063/,
  ],
  [
    "units that a call reserves beyond the limit",
    "worker",
    set("call", ["reserved", "usd"], 2, 2),
    /reserves usd up to 2, and 1 were left to it/,
  ],
  ["totals: calls", "worker", set("ended", ["calls"], (was: number) => was - 1), /calls is 5, and the records say 6/],
  ["totals: bytes", "killed", set("ended", ["bytes"], (was: number) => was + 1), /bytes is 3, and the records say 2/],
  [
    "totals: bytes beyond the bounds",
    "worker",
    set("ended", ["bytes"], 1),
    /bytes is 1, and the records say \d+ to \d+/,
  ],
  [
    "totals: units",
    "worker",
    set("ended", ["units", "usd"], (was: number) => was + 0.000001),
    /usd is .*, and the records say/,
  ],
  ["totals: no units", "worker", set("ended", ["units"], undefined), /is 0, and the records say/],
  ["an approval that is dropped", "worker", drop("approval", 1), /is used, and was asked before/],
  ["a request for approval that is dropped", "worker", drop("approval", 0), /was never asked for before/],
  [
    "an approval that is used twice",
    "worker",
    (records) => {
      const at = records.findIndex(({ type, approval }) => type === "call" && approval !== undefined);
      return insert(
        () => at,
        () => records[at]!,
      )(records);
    },
    /is used, and was used before/,
  ],
  [
    "a call after a kill",
    "killed",
    insert(
      (records) => indexOf(records, "switched") + 1,
      (records) => records[indexOf(records, "call")]!,
    ),
    /stands after the kill of/,
  ],
  ["a kill that is dropped", "killed", drop("switched"), /its cause is switched, and the records say deadline/],
  ["a call after the deadline", "worker", set("call", ["at"], () => story.deadlineMs, 1), /stands after the deadline/],
  [
    "a call to what its scope does not allow",
    "worker",
    set("call", ["target"], "/github/repos/evil/widgets/issues"),
    /is not what entry 0 of its scope allows/,
  ],
  [
    "a call that names another entry",
    "worker",
    set("call", ["decision", "entry"], 1),
    /by an operation that entry 1 of its scope does not have/,
  ],
  [
    "a scope that is narrower than its calls' bodies",
    "worker",
    set("enrolled", ["scope", 1, "where", "body./max_tokens", "max"], 5),
    /is not what entry 1 of its scope allows, by its body/,
  ],
  [
    "a layer that was not asked",
    "worker",
    set("call", ["decision", "ceilings"], (was: unknown[]) => was.slice(0, -1)),
    /was allowed by the layers entitlement, agent, and is bounded by entitlement, agent, boundaries/,
  ],
  ["a mandate in one record", "worker", set("call", ["mandate"], "m"), /its mandate is not that of/],
  ["another agent in one record", "worker", set("answer", ["agent"], "x"), /its agent is not that of/],
  ["a grant that nobody has given out", "worker", set("call", ["grant"], "x"), /its grant was not given out/],
  [
    "another manifest",
    "worker",
    set("enrolled", ["manifest", "model"], "other"),
    /manifestDigest is not of its manifest/,
  ],
  [
    "a child with more than it was given",
    "child",
    set("enrolled", ["limits", "calls"], 1_000),
    /its limits is not what was delegated/,
  ],
  [
    "a child with a wider scope",
    "child",
    set("enrolled", ["scope", 0, "where"], undefined),
    /its scope is not what was delegated/,
  ],
  [
    "a child of longer life",
    "child",
    set("enrolled", ["deadline"], (was: number) => was + 1),
    /its deadline is not what was delegated/,
  ],
  ["a child that nobody has delegated to", "parent", drop("delegated"), /to which nothing was delegated/],
  [
    "a delegation beyond what is left",
    "parent",
    set("delegated", ["limits", "calls"], 1e9),
    /delegates more of calls than it has left/,
  ],
  [
    "a delegation beyond its own scope",
    "parent",
    set("delegated", ["scope", 0, "where"], undefined),
    /delegates what its own scope does not cover: entry 0/,
  ],
  [
    "a delegation beyond its own deadline",
    "parent",
    set("delegated", ["deadline"], () => story.deadlineMs + 1),
    /delegates beyond its own deadline/,
  ],
  [
    "a child that comes back with less spent",
    "parent",
    set("delegated", ["spent", "calls"], 0, 1),
    /with 0 calls spent, and its transcript says 1/,
  ],
  [
    "a child that comes back with more spent than it had",
    "parent",
    set("delegated", ["spent", "calls"], 11, 1),
    /has spent more calls than were delegated to it/,
  ],
];

describe("forged, and sealed with the gate's own key", () => {
  it.each(rows)("%s: found", async (_name, who, change, problem) => {
    const problems = await found(story[who], change);
    expect(problems.filter((one) => problem.test(one))).not.toEqual([]);
  });
});
