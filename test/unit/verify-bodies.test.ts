// Raw objects of large bodies, and bodies that are gone: erased, expired, or lost.

import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type Erasure, writeErasureLine } from "../../src/transcript/erasure.ts";
import {
  bodiesKey,
  erasureKey,
  instancePartition,
  RAW_OBJECT_MAX_BYTES,
  rawBodyKey,
  segmentKey,
} from "../../src/transcript/layout.ts";
import { type VerifyOptions, verifyTranscripts } from "../../src/transcript/verify.ts";
import {
  DEADLINE_MS,
  findingsOf,
  ISSUER,
  keysOf,
  newRing,
  type Objects,
  objectsOf,
  rewrite,
  START_MS,
  type TranscriptWriter,
  writerOf,
} from "./transcript-kit.ts";

const IDS = { human: "h-ada", task: "t-1", instance: "i-a" };
const PARTITION = instancePartition(IDS);
const SEGMENT = segmentKey(PARTITION, 0);
const BODIES = bodiesKey(PARTITION, 0, 0);
const raw = (no: number, seq = 1, part: "request" | "answer" = "answer") => rawBodyKey(PARTITION, seq, part, no);
const ring = await newRing("k");
const stranger = await newRing("stranger");
const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
const THREE = [bytes(5_000, 1), bytes(4_000, 2), bytes(10, 3)];

function enrol(writer: TranscriptWriter): void {
  const claims = writer.body(0, "claims", { runs: ['{"sub":"ada"}'] });
  writer.record("enrolled", { deadline: DEADLINE_MS, claims });
}

/** A request that is raw as a whole, an answer that begins inline; both in three objects. */
function writeLarge(ids = IDS): Objects {
  const writer = writerOf(ids, ring);
  enrol(writer);
  const answer = writer.body(1, "answer", { runs: ["once ", "upon a time "], raw: THREE });
  const requestBody = writer.body(1, "request", { runs: [], raw: THREE });
  writer.record("call", { body: { ...requestBody, digest: null, bytes: null, complete: false } });
  writer.record("answer", { call: 1, body: answer, requestBody });
  writer.record("ended");
  writer.seal(true);
  return writer.objects;
}

const verify = (objects: Objects, options: Partial<VerifyOptions> = {}) =>
  verifyTranscripts(objectsOf(objects), { keys: keysOf(ring), issuer: ISSUER, nowMs: DEADLINE_MS, ...options });

const findings = async (objects: Objects, options?: Partial<VerifyOptions>) =>
  findingsOf(await verify(objects, options));

describe("raw objects", () => {
  it("are the body that the records state", async () => {
    expect(await verify(writeLarge())).toMatchObject({
      ok: true,
      transcripts: [{ records: 4, status: "ended", absentBodies: [], undigestedBodies: [], bodiesAhead: 0 }],
    });
  });

  const total = 17 + 5_000 + 4_000 + 10;
  const answerRecord = `${SEGMENT} line 3 (seq 2)`;
  const answerLine = `${BODIES} line 2 (seq 1, answer)`;
  const altered = `altered in one of its 2 runs or 3 raw objects: not the digest of ${answerRecord}`;
  const moreThan = `more than the ${total} bytes of ${answerRecord}`;
  const table: [name: string, tamper: (objects: Objects) => void, place: string, problem: string][] = [
    ["a changed byte", (o) => void o.set(raw(1), o.get(raw(1))!.with(7, 9)), answerLine, altered],
    ["two swapped", (o) => void o.set(raw(0), THREE[1]!).set(raw(1), THREE[0]!), answerLine, altered],
    [
      "the first gone",
      (o) => void o.delete(raw(0)),
      raw(0),
      `missing: 17 of the ${total} bytes of ${answerRecord} come before it`,
    ],
    [
      "one in the middle gone",
      (o) => void o.delete(raw(1)),
      raw(1),
      `missing: 5017 of the ${total} bytes of ${answerRecord} come before it`,
    ],
    [
      "the last gone",
      (o) => void o.delete(raw(2)),
      raw(2),
      `missing: 9017 of the ${total} bytes of ${answerRecord} come before it`,
    ],
    [
      "a byte short",
      (o) => void o.set(raw(2), bytes(9, 3)),
      raw(3),
      `missing: ${total - 1} of the ${total} bytes of ${answerRecord} come before it`,
    ],
    ["a byte more", (o) => void o.set(raw(2), bytes(11, 3)), raw(2), moreThan],
    ["one too many", (o) => void o.set(raw(3), bytes(1, 3)), raw(3), moreThan],
    ["an empty one too many", (o) => void o.set(raw(3), bytes(0, 0)), raw(3), "a raw object that holds nothing"],
    [
      "one too many, and a gap before it",
      (o) => void o.set(raw(4), bytes(1, 3)),
      raw(3),
      `missing: ${total} of the ${total} bytes of ${answerRecord} come before it`,
    ],
    [
      "a larger one than is written",
      (o) => void o.set(raw(0, 1, "request"), bytes(RAW_OBJECT_MAX_BYTES + 1, 0)),
      raw(0, 1, "request"),
      `more than the 9010 bytes of ${answerRecord}`,
    ],
    [
      "one that no line refers to",
      (o) => void o.set(raw(0, 2), THREE[0]!),
      raw(0, 2),
      "a raw object that no line refers to",
    ],
    [
      "one of the records to come, of a transcript that has ended",
      (o) => void o.set(raw(0, 9), THREE[0]!),
      raw(0, 9),
      "a raw object that no line refers to",
    ],
    [
      "one of another instance in its place",
      (o) =>
        void o.set(
          raw(0),
          writeLarge({ ...IDS, instance: "i-b" })
            .get(raw(0).replace("i-a", "i-b"))!
            .with(0, 5),
        ),
      answerLine,
      altered,
    ],
    [
      "a name in another spelling",
      (o) => void o.set(raw(0).replace(".0000", ".00000"), THREE[0]!),
      raw(0).replace(".0000", ".00000"),
      "not the name of a segment or of its bodies",
    ],
    [
      "a name in another case",
      (o) => void o.set(raw(0).replace("answer", "Answer"), THREE[0]!),
      raw(0).replace("answer", "Answer"),
      "not the name of a segment or of its bodies",
    ],
    [
      "its line twice",
      (o) => rewrite(o, BODIES, (lines) => lines.toSpliced(4, 0, lines[3]!)),
      `${BODIES} line 5 (seq 1, answer)`,
      "a run behind a body's raw objects",
    ],
    [
      "a run behind them",
      (o) => rewrite(o, BODIES, (lines) => lines.toSpliced(4, 0, lines[2]!.replace('"index":1', '"index":3'))),
      `${BODIES} line 5 (seq 1, answer)`,
      "a run behind a body's raw objects",
    ],
    [
      "its line before its runs",
      (o) => rewrite(o, BODIES, (lines) => lines.toSpliced(3, 1).toSpliced(1, 0, lines[3]!)),
      `${BODIES} line 2 (seq 1, answer)`,
      "run 2 of a body where its run 0 belongs",
    ],
    [
      "a line that names another body",
      (o) => rewrite(o, BODIES, (lines) => lines.with(3, lines[3]!.replace("0000000001-answer", "0000000001-request"))),
      `${BODIES} line 4`,
      "not a run of a body as it was written",
    ],
    [
      "a changed salt of a body without runs",
      (o) => rewrite(o, BODIES, (lines) => lines.with(4, lines[4]!.replace('"salt":"03', '"salt":"04'))),
      `${BODIES} line 5 (seq 1, request)`,
      `altered in one of its 3 raw objects: not the digest of ${answerRecord}`,
    ],
  ];
  it.each(table)("%s: found at its place", async (_name, tamper, place, problem) => {
    const objects = writeLarge();
    tamper(objects);
    expect(await findings(objects)).toEqual([{ place, problem }]);
  });

  it("whose line is gone: each", async () => {
    const objects = writeLarge();
    rewrite(objects, BODIES, (lines) => lines.toSpliced(4, 1));
    const problem = "a raw object that no line refers to";
    expect(await findings(objects)).toEqual([0, 1, 2].map((no) => ({ place: raw(no, 1, "request"), problem })));
  });

  it("of one body in one object: that one is named", async () => {
    const writer = writerOf(IDS, ring);
    enrol(writer);
    writer.record("call", { body: null });
    writer.record("answer", { call: 1, body: writer.body(1, "answer", { runs: [], raw: [THREE[0]!] }) });
    writer.seal();
    const objects = writer.objects.set(raw(0), bytes(5_000, 2));
    expect(await findings(objects)).toEqual([{ place: raw(0), problem: `altered: not the digest of ${answerRecord}` }]);
  });

  it("of calls that run, or that are not here yet: ahead", async () => {
    const writer = writerOf(IDS, ring);
    enrol(writer);
    writer.record("call", {
      body: { digest: null, bytes: null, mediaType: null, coding: "identity", complete: false },
    });
    writer.seal();
    writer.objects
      .set(raw(0), THREE[0]!)
      .set(raw(0, 1, "request"), THREE[0]!)
      .set(raw(0, 2), THREE[0]!);
    expect(await verify(writer.objects)).toMatchObject({
      ok: true,
      transcripts: [{ bodiesAhead: 3, undigestedBodies: [], absentBodies: [] }],
    });
  });

  it("beyond what the record of a reset object states: told, no finding", async () => {
    const writer = writerOf(IDS, ring);
    enrol(writer);
    writer.record("call", { body: null });
    const body = writer.body(1, "answer", { runs: ["x"], raw: [THREE[0]!] });
    writer.record("answer", { call: 1, body: { ...body, complete: false, mayMiss: 9_000 } });
    writer.seal();
    writer.objects.set(raw(1), THREE[1]!);
    expect(await verify(writer.objects)).toMatchObject({
      ok: true,
      transcripts: [{ undigestedBodies: [{ seq: 1, part: "answer" }] }],
    });
    writer.objects.set(raw(0), bytes(5_000, 9));
    expect((await verify(writer.objects)).ok).toBe(false);
  });
});

const certificate = (change: Partial<Erasure> = {}): Erasure => ({
  iss: ISSUER,
  id: "e1",
  human: "h-ada",
  by: "h-oscar",
  reason: "She asked for it",
  at: START_MS + 10_000,
  before: START_MS + 10_000,
  ...change,
});

const certify = (objects: Objects, erasure = certificate(), by = ring): Objects =>
  objects.set(erasureKey(erasure.human, erasure.id), new TextEncoder().encode(`${writeErasureLine(by, erasure)}\n`));

/** All bodies gone. */
function withoutBodies(): Objects {
  const objects = writeLarge();
  for (const key of [...objects.keys()]) if (key.startsWith("bodies/")) objects.delete(key);
  return objects;
}

const ALL = [
  { seq: 0, part: "claims" },
  { seq: 1, part: "request" },
  { seq: 1, part: "answer" },
];

describe("bodies that are gone", () => {
  const absent = [
    { place: `${SEGMENT} line 1 (seq 0)`, problem: "its claims body is absent, and nothing accounts for that" },
    { place: `${SEGMENT} line 3 (seq 2)`, problem: "its request body is absent, and nothing accounts for that" },
    { place: `${SEGMENT} line 3 (seq 2)`, problem: "its answer body is absent, and nothing accounts for that" },
  ];

  it("with nothing to account for it: lost, each a finding", async () => {
    const report = await verify(withoutBodies());
    expect(findingsOf(report)).toEqual(absent);
    expect(report.transcripts[0]).toMatchObject({ absentBodies: ALL, erasedBodies: [], expiredBodies: [] });
  });

  it("by a certificate: erased, and by which", async () => {
    for (const change of [{}, { task: "t-1" }]) {
      const report = await verify(certify(withoutBodies(), certificate(change)));
      expect(findingsOf(report)).toEqual([]);
      expect(report.transcripts[0]).toMatchObject({
        erasedBodies: ALL.map((body) => ({ ...body, erasure: "e1" })),
        absentBodies: [],
      });
    }
  });

  it("after what the certificate is for: lost", async () => {
    // Records 0 and 1 stand at START_MS and one later, the answer at START_MS + 2.
    const report = await verify(certify(withoutBodies(), certificate({ before: START_MS + 1 })));
    expect(findingsOf(report)).toEqual([absent[2]]);
    expect(report.transcripts[0]).toMatchObject({ erasedBodies: [{ seq: 0 }, { seq: 1, part: "request" }] });
  });

  it.each([
    ["of another task", { task: "t-2" }],
    ["of another human", { human: "h-bob" }],
  ])("and a certificate %s: lost", async (_name, change) => {
    expect(await findings(certify(withoutBodies(), certificate(change)))).toEqual(absent);
  });

  const place = erasureKey("h-ada", "e1");
  const line = (erasure: Erasure, by = ring) => writeErasureLine(by, erasure);
  const forged: [name: string, text: () => string, problem: string][] = [
    [
      "signed by a stranger",
      () => line(certificate(), stranger),
      "the certificate's signature does not verify: no key with its kid is known",
    ],
    ["changed", () => line(certificate()).replace(/\.(.{40})./, ".$1A"), "the certificate: payload: not JSON"],
    [
      "of another human, moved here",
      () => line(certificate({ human: "h-bob" })),
      "a foreign certificate: it is e1, of human h-bob",
    ],
    ["of another id", () => line(certificate({ id: "e2" })), "a foreign certificate: it is e2, of human h-ada"],
    [
      "of another gate",
      () => line(certificate({ iss: "https://other.test" })),
      `the certificate is of issuer https://other.test, not of ${ISSUER}`,
    ],
    [
      "with something beside what is signed",
      () => line(certificate()).replace('"v":1', '"v":1,"note":"ok"'),
      "not an erasure certificate as it was written",
    ],
    [
      "a token of another kind by the same key",
      () => JSON.stringify({ v: 1, type: "erasure", jws: ring.signCompact("portcullis-seal+jwt", certificate()) }),
      "the certificate is another kind of token",
    ],
    [
      "with a claim more",
      () =>
        JSON.stringify({
          v: 1,
          type: "erasure",
          jws: ring.signCompact("portcullis-erasure+jwt", { ...certificate(), x: 1 }),
        }),
      "the certificate's payload is malformed",
    ],
    [
      "for what comes after it",
      () =>
        JSON.stringify({
          v: 1,
          type: "erasure",
          jws: ring.signCompact("portcullis-erasure+jwt", { ...certificate(), before: START_MS + 10_001 }),
        }),
      "the certificate's payload is malformed",
    ],
    ["of nothing", () => "", "not an erasure certificate"],
    ["too long to be one", () => "x".repeat(70_000), "can't be read"],
  ];
  it.each(forged)("and a certificate %s: that is found, and they are lost", async (_name, text, problem) => {
    const objects = withoutBodies().set(place, new TextEncoder().encode(text()));
    const found = await findings(objects);
    if (problem.startsWith("the certificate: payload")) expect(found[0]).toMatchObject({ place });
    else expect(found[0]).toEqual({ place, problem });
    expect(found.slice(1)).toEqual(absent);
  });

  it("a strange name among the certificates: found", async () => {
    const key = "erasures/human=h-ada/e1.txt";
    expect(await findings(writeLarge().set(key, bytes(1, 1)))).toEqual([
      { place: key, problem: "not the name of an erasure certificate" },
    ]);
  });

  it("as objects one after the other, while an erasure runs: erased", async () => {
    for (const gone of [[raw(0)], [raw(1)], [raw(2)], [raw(0), raw(1), raw(2)], [BODIES]]) {
      const objects = certify(writeLarge());
      for (const key of gone) objects.delete(key);
      const report = await verify(objects);
      expect(findingsOf(report), gone.join()).toEqual([]);
      expect(report.transcripts[0]!.erasedBodies).toContainEqual({ seq: 1, part: "answer", erasure: "e1" });
    }
  });

  it("a run taken out of an object that is here: found, certificate or not", async () => {
    const objects = certify(writeLarge());
    rewrite(objects, BODIES, (lines) => lines.toSpliced(1, 1));
    expect(await findings(objects)).toEqual([
      { place: `${BODIES} line 2 (seq 1, answer)`, problem: "run 1 of a body where its run 0 belongs" },
    ]);
  });

  it("a raw object too many: found, certificate or not", async () => {
    const objects = certify(writeLarge()).set(raw(3), bytes(1, 3));
    expect(await findings(objects)).toMatchObject([
      { place: raw(3), problem: expect.stringMatching(/^more than the/) },
    ]);
  });

  it("a body that is altered, not erased: found, certificate or not", async () => {
    const objects = certify(writeLarge());
    objects.set(raw(0), bytes(5_000, 9));
    expect(await findings(objects)).toMatchObject([{ place: `${BODIES} line 2 (seq 1, answer)` }]);
  });

  it("older than the bucket's lifecycle: expired; younger: lost", async () => {
    const DAY_MS = 86_400_000;
    const at = (nowMs: number) => verify(withoutBodies(), { nowMs, bodiesKeptMs: 30 * DAY_MS });
    const late = await at(START_MS + 30 * DAY_MS + 2);
    expect(findingsOf(late)).toEqual([]);
    expect(late.transcripts[0]).toMatchObject({ expiredBodies: ALL, erasedBodies: [], absentBodies: [] });
    const early = await at(START_MS + 30 * DAY_MS);
    expect(findingsOf(early)).toEqual(absent);
  });

  it("and were not asked for: only envelopes are verified, and the report says so", async () => {
    const objects = withoutBodies().set("bodies/whatever", gzipSync(new Uint8Array(1)));
    expect(await verify(objects, { bodies: false })).toMatchObject({
      ok: true,
      bodiesVerified: false,
      transcripts: [{ records: 4, absentBodies: [] }],
    });
    rewrite(objects, SEGMENT, (lines) => lines.with(0, lines[0]!.replace("h-ada", "h-bob")));
    expect((await verify(objects, { bodies: false })).ok).toBe(false);
  });
});
