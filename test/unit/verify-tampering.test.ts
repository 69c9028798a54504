// Seals that are not what they seem, segments that stand where they don't belong, and what is odd but lawful.

import { describe, expect, it } from "vitest";
import type { KeyRing } from "../../src/grant/keys.ts";
import { FIRST_PREV } from "../../src/transcript/envelope.ts";
import {
  type InstancePartition,
  instancePartition,
  journalPartition,
  segmentKey,
} from "../../src/transcript/layout.ts";
import type { Seal } from "../../src/transcript/seal.ts";
import { END_GRACE_MS, verifyTranscripts } from "../../src/transcript/verify.ts";
import {
  DEADLINE_MS,
  findingsOf,
  ISSUER,
  keysOf,
  linesOf,
  newRing,
  type Objects,
  objectsOf,
  rewrite,
  START_MS,
  TranscriptWriter,
  writerOf,
} from "./transcript-kit.ts";

const IDS = { human: "h", task: "t", instance: "i" };
const segment = (seq: number, ids: InstancePartition = IDS) => segmentKey(instancePartition(ids), seq);
const ring = await newRing("k");
const grantRing = await newRing("grant");
const LATER_MS = DEADLINE_MS + END_GRACE_MS + 1;

const verify = (objects: Objects, issuer: string | null = ISSUER, nowMs = LATER_MS) =>
  verifyTranscripts(objectsOf(objects), { keys: keysOf(ring), issuer, nowMs });

/** Three segments of two records: 0 and 1, 2 and 3, 4 and 5. `seal` changes what the second is sealed with. */
function write(
  ids = IDS,
  { seal = {}, by = ring, issuer = ISSUER }: { seal?: Partial<Seal>; by?: KeyRing; issuer?: string } = {},
) {
  const writer = writerOf(ids, by, issuer);
  writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
  writer.record("renewed");
  writer.seal();
  writer.record("call", { body: null });
  writer.record("answer", { call: 2, body: null });
  writer.seal(false, seal);
  writer.record("switched");
  writer.record("ended");
  writer.seal(true);
  return writer.objects;
}

/** The last line of the second segment, made anew from the seal that is in it. */
const withJws = (change: (jws: string) => string) => (objects: Objects) =>
  rewrite(objects, segment(2), (lines) =>
    lines.with(2, JSON.stringify({ v: 1, type: "seal", jws: change(JSON.parse(lines[2]!).jws) })),
  );

const base64url = (value: unknown): string =>
  btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const payloadOf = (jws: string): object =>
  JSON.parse(atob(jws.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/")));
const withHeader = (header: object) => withJws((jws) => [base64url(header), ...jws.split(".").slice(1)].join("."));
const TYP = "portcullis-seal+jwt";

describe("a seal", () => {
  it("that is true", async () => {
    expect(await verify(write())).toMatchObject({ ok: true, transcripts: [{ records: 6, clockBack: null }] });
  });

  const place = `${segment(2)} line 3`;
  const other = "the seal is another kind of token";
  const otherAlg = "the seal's alg is not that of its key";
  const table: [name: string, tamper: (objects: Objects) => void, problem: string][] = [
    ["of alg none", withHeader({ alg: "none", typ: TYP, kid: "k" }), otherAlg],
    [
      "of alg none, and without a signature",
      withJws((jws) => `${base64url({ alg: "none", typ: TYP })}.${jws.split(".")[1]}.`),
      "the seal: an empty part",
    ],
    ["of alg HS256", withHeader({ alg: "HS256", typ: TYP, kid: "k" }), otherAlg],
    ["of alg EdDSA, the name that tells no curve", withHeader({ alg: "EdDSA", typ: TYP, kid: "k" }), otherAlg],
    [
      "without a kid",
      withHeader({ alg: "Ed25519", typ: TYP }),
      "the seal's signature does not verify: no key with its kid is known",
    ],
    [
      "with a header of its own key",
      withHeader({ alg: "Ed25519", typ: TYP, kid: "k", jwk: ring.jwks.keys[0] }),
      "the seal's signature does not verify",
    ],
    [
      "with crit",
      withHeader({ alg: "Ed25519", typ: TYP, kid: "k", crit: ["x"] }),
      "the seal: an extension that is not understood (crit)",
    ],
    [
      "by a key that signs grants",
      withJws((jws) => grantRing.signCompact(TYP, payloadOf(jws))),
      "the seal's signature does not verify: no key with its kid is known",
    ],
    [
      "that is another token by the same key",
      withJws((jws) => ring.signCompact("portcullis-receipt+jwt", payloadOf(jws))),
      other,
    ],
    [
      "with a claim more",
      withJws((jws) => ring.signCompact(TYP, { ...payloadOf(jws), note: "" })),
      "the seal's payload is malformed",
    ],
    [
      "of the segment before",
      (o) => rewrite(o, segment(2), (lines) => lines.with(2, linesOf(o, segment(0))[2]!)),
      "the seal begins with seq 0, the object's name says 2",
    ],
    [
      "of the segment behind",
      (o) => rewrite(o, segment(2), (lines) => lines.with(2, linesOf(o, segment(4))[2]!)),
      "the seal begins with seq 4, the object's name says 2",
    ],
    [
      "in a version that nobody knows",
      (o) => rewrite(o, segment(2), (lines) => lines.with(2, lines[2]!.replace('"v":1', '"v":2'))),
      "the seal has a version of the format that is not known",
    ],
  ];
  it.each(table)("%s: found", async (_name, tamper, problem) => {
    const objects = write();
    tamper(objects);
    expect(findingsOf(await verify(objects))).toEqual([{ place, problem }]);
  });

  // By whoever holds the key: the seal states what is not so.
  const stated: [name: string, seal: Partial<Seal>, place: string, problem: string][] = [
    ["a range that ends later", { last: 4 }, place, "the seal ends with seq 4, the records end with seq 3"],
    ["a range that ends earlier", { last: 2 }, place, "the seal ends with seq 2, the records end with seq 3"],
    ["a range that begins earlier", { first: 1 }, place, "the seal begins with seq 1, the object's name says 2"],
    [
      "another head",
      { head: FIRST_PREV },
      `${segment(2)} line 2 (seq 3)`,
      "altered: its bytes are not those that the seal names",
    ],
    ["another prev", { prev: FIRST_PREV }, place, "the seal does not follow the head of the segment before"],
    ["an end that is none", { final: true }, place, "the seal is final, and the last record is not the end"],
    [
      "another issuer",
      { iss: "https://other.test" },
      place,
      `the seal is of issuer https://other.test, not of ${ISSUER}`,
    ],
    ["another log", { log: "j" }, place, "a foreign segment: its seal is of j, not of i"],
  ];
  it.each(stated)("that states %s: found", async (_name, seal, where, problem) => {
    expect(findingsOf(await verify(write(IDS, { seal })))[0]).toEqual({ place: where, problem });
  });
});

describe("a segment", () => {
  it.each([
    ["human", { ...IDS, human: "g" }],
    ["task", { ...IDS, task: "s" }],
  ])("of the same instance for another %s: found at its record", async (field, ids) => {
    const objects = write().set(segment(2), write(ids).get(segment(2, ids))!);
    const found = findingsOf(await verify(objects));
    expect(found).toContainEqual({
      place: `${segment(2)} line 1 (seq 2)`,
      problem: `a foreign record: its ${field} is not ${IDS[field as "human" | "task"]}`,
    });
    expect(found.every(({ place }) => place.startsWith(segment(2)) || place.startsWith(segment(4)))).toBe(true);
  });

  it("of another gate that holds the same key: found where the issuer is named", async () => {
    const other = "https://other.test";
    const objects = write(IDS, { issuer: other });
    expect((await verify(objects, null)).ok).toBe(true);
    expect(findingsOf(await verify(objects)).map(({ problem }) => problem)).toEqual(
      Array.from({ length: 3 }, () => `the seal is of issuer ${other}, not of ${ISSUER}`),
    );
  });

  it("under another name as well: found under that name", async () => {
    for (const [as, problem] of [
      [3, "begins before seq 4, which comes next"],
      [6, "a segment after the sealed end"],
    ] as const) {
      const objects = write();
      objects.set(segment(as), objects.get(segment(2))!);
      const found = findingsOf(await verify(objects));
      expect(found[0]).toEqual({ place: segment(as), problem });
      expect(found).toContainEqual({
        place: `${segment(as)} line 3`,
        problem: `the seal begins with seq 2, the object's name says ${as}`,
      });
    }
  });

  it("under another name instead: missing here, and wrong there", async () => {
    const objects = write();
    objects.set(segment(3), objects.get(segment(2))!).delete(segment(2));
    const found = findingsOf(await verify(objects));
    expect(found).toContainEqual({ place: segment(2), problem: "missing: the segment after it begins with seq 3" });
    expect(found).toContainEqual({
      place: `${segment(3)} line 3`,
      problem: "the seal begins with seq 2, the object's name says 3",
    });
  });

  it("that tells seq 3 a second time, and otherwise: found", async () => {
    // Sealed by whoever holds the key, from a transcript that took another way after seq 2.
    const writer = writerOf(IDS, ring);
    for (let seq = 0; seq < 3; seq++) writer.record("refused", { body: null });
    writer.seal();
    writer.record("refused", { body: null });
    writer.seal();
    const objects = write().set(segment(3), writer.objects.get(segment(3))!);
    expect(findingsOf(await verify(objects))).toContainEqual({
      place: segment(3),
      problem: "begins before seq 4, which comes next",
    });
  });

  it("behind the sealed end, as if it went on: found", async () => {
    const writer = writerOf(IDS, ring);
    for (let seq = 0; seq < 6; seq++) writer.record("refused", { body: null });
    writer.seal();
    writer.record("refused", { body: null });
    writer.seal();
    const objects = write().set(segment(6), writer.objects.get(segment(6))!);
    expect(findingsOf(await verify(objects))[0]).toEqual({
      place: segment(6),
      problem: "a segment after the sealed end",
    });
  });

  const at = (change: (bytes: Uint8Array) => Uint8Array) => {
    const objects = write();
    return verify(objects.set(segment(2), change(objects.get(segment(2))!)));
  };
  it.each([
    ["FTEXT", (bytes: Uint8Array) => bytes.with(3, 1)],
    [
      "FNAME",
      (bytes: Uint8Array) => Uint8Array.of(...bytes.with(3, 8).slice(0, 10), 0x68, 0x69, 0, ...bytes.slice(10)),
    ],
    ["FCOMMENT", (bytes: Uint8Array) => Uint8Array.of(...bytes.with(3, 16).slice(0, 10), 0x68, 0, ...bytes.slice(10))],
  ])("with %s in its gzip header: found", async (_name, change) => {
    expect(findingsOf(await at(change))).toEqual([
      { place: segment(2), problem: "a gzip header with more in it than was written" },
    ]);
  });

  it("compressed anew is the same", async () => {
    const objects = write();
    rewrite(objects, segment(2), (lines) => lines);
    expect((await verify(objects)).ok).toBe(true);
  });
});

describe("lawful, and told", () => {
  it("an open transcript before its deadline", async () => {
    const objects = write();
    objects.delete(segment(4));
    expect(await verify(objects, ISSUER, LATER_MS - 1)).toMatchObject({ ok: true, transcripts: [{ status: "open" }] });
    expect(findingsOf(await verify(objects))).toEqual([
      { place: segment(4), problem: expect.stringMatching(/^cut tail: no sealed end/) },
    ]);
  });

  it("a clock that was set back", async () => {
    const writer = writerOf(IDS, ring);
    writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
    writer.nowMs -= 5_000;
    writer.record("renewed");
    writer.record("renewed");
    writer.nowMs += 60_000;
    writer.record("renewed");
    writer.seal();
    expect(await verify(writer.objects, ISSUER, START_MS)).toMatchObject({
      ok: true,
      transcripts: [{ clockBack: { records: 2, mostMs: 4_999 } }],
    });
  });
});

describe("a journal", () => {
  const journal = (day: string, segments = 3): Objects => {
    const log = `admin.${day}`;
    const partition = journalPartition("admin", day);
    const writer = new TranscriptWriter({ partition, log, ids: { journal: log } }, ring);
    for (let no = 1; no <= segments; no++) {
      writer.record(no === segments ? "ended" : "read");
      writer.seal(no === segments);
    }
    return writer.objects;
  };
  const key = (day: string, seq: number) => segmentKey(journalPartition("admin", day), seq);

  it("of one day, and of another a week later: what lies between is no gap", async () => {
    const objects = new Map([...journal("2026-05-01"), ...journal("2026-05-08")]);
    expect(await verify(objects)).toMatchObject({ ok: true, transcripts: [{ status: "ended" }, { status: "ended" }] });
  });

  it.each([
    [0, "missing: the segment after it begins with seq 1"],
    [1, "missing: the segment after it begins with seq 2"],
    [2, "cut tail: no sealed end, and the deadline was 2026-05-02T00:05:00.000Z"],
  ])("without its segment %i: found", async (seq, problem) => {
    const objects = journal("2026-05-01");
    objects.delete(key("2026-05-01", seq));
    const afterMs = Date.parse("2026-05-03T00:00:00Z");
    expect(findingsOf(await verify(objects, ISSUER, afterMs))).toEqual([{ place: key("2026-05-01", seq), problem }]);
  });

  it("with a segment of another day: found", async () => {
    const objects = journal("2026-05-01").set(key("2026-05-01", 1), journal("2026-05-02").get(key("2026-05-02", 1))!);
    expect(findingsOf(await verify(objects))[0]).toEqual({
      place: `${key("2026-05-01", 1)} line 2`,
      problem: "a foreign segment: its seal is of admin.2026-05-02, not of admin.2026-05-01",
    });
  });

  it("with bodies: found", async () => {
    const name = "bodies/journal=admin/day=2026-05-01/0000000000.jsonl.gz";
    const raw = "bodies/journal=admin/day=2026-05-01/0000000000-answer.0000";
    const objects = journal("2026-05-01");
    rewrite(objects.set(name, objects.get(key("2026-05-01", 0))!), name, () => [
      '{"v":1,"seq":0,"part":"request","index":0,"text":"x"}',
      "",
    ]);
    objects.set(raw, new Uint8Array(1));
    expect(findingsOf(await verify(objects))).toEqual([
      { place: raw, problem: "not the name of a segment or of its bodies" },
      { place: `${name} line 1 (seq 0, request)`, problem: "a body that no record refers to" },
    ]);
  });
});
