import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gunzipSync, gzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { BodyWriter, wholeBody } from "../../durable-objects/bodies.ts";
import { INSTANCE_SHAPES } from "../../durable-objects/instance-shapes.ts";
import { Kept } from "../../durable-objects/kept.ts";
import { type Sealing, TranscriptLog } from "../../durable-objects/transcript-log.ts";
import { KeyRing, SEAL_ALGORITHMS } from "../../src/grant/keys.ts";
import { ok } from "../../src/result.ts";
import { SALT_BYTES } from "../../src/transcript/body-line.ts";
import { FIRST_PREV, type Fields, type RecordType, sha256Hex } from "../../src/transcript/envelope.ts";
import { instancePartition, journalPartition } from "../../src/transcript/layout.ts";
import { writeSealLine } from "../../src/transcript/seal.ts";
import { END_GRACE_MS, verifyTranscripts } from "../../src/transcript/verify.ts";
import { MAX_FINDINGS } from "../../src/transcript/verify-findings.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { OBJECT_MAX_BYTES } from "../../src/transcript/verify-lines.ts";
import { keysOf, newJwk, ringOf } from "../unit/transcript-kit.ts";

type Objects = Map<string, Uint8Array>;

const ISSUER = "https://gate.test";
const START_MS = Date.parse("2026-05-01T12:00:00Z");
/** Of a body whose length nobody has said. */
const UNDECLARED = { declaredBytes: null };
const DEADLINE_MS = START_MS + 3_600_000;
const LATER_MS = DEADLINE_MS + END_GRACE_MS + 1;
const DAY_END_MS = Date.parse("2026-05-02T00:05:00Z");

const A = { human: "h-ada", task: "t-1", instance: "i-a" };
const B = { human: "h-ada", task: "t-1", instance: "i-b" };
const PARTITION = instancePartition(A);
const segment = (seq: number, partition = PARTITION): string =>
  `transcripts/${partition}/${String(seq).padStart(10, "0")}.jsonl.gz`;
const bodies = (seq: number, partition = PARTITION): string => segment(seq, partition).replace("transcripts", "bodies");

const bindings = env as unknown as {
  SEAL_KEYS: string;
  TRANSCRIPTS: R2Bucket;
  AGENT_INSTANCE: DurableObjectNamespace;
};
const utf8 = new TextEncoder();
const ring = new KeyRing(bindings.SEAL_KEYS, "SEAL_KEYS", SEAL_ALGORITHMS);
/** Whose keys nobody trusts; the second says that its key is the trusted one. */
let stranger: KeyRing;
let impostor: KeyRing;
let keys: SealKeys;
/** What the real writer put into a real bucket: instances A and B, each of three segments and ended. */
let truth: Objects;
let foreign: Objects;

beforeAll(async () => {
  const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
  const jwk = (await crypto.subtle.exportKey("jwk", pair.privateKey)) as { x: string; d: string };
  const strange = (kid: string) =>
    new KeyRing(
      JSON.stringify({ keys: [{ kty: "OKP", crv: "Ed25519", kid, x: jwk.x, d: jwk.d }] }),
      kid,
      SEAL_ALGORITHMS,
    );
  stranger = strange("stranger");
  impostor = strange(ring.jwks.keys[0]!.kid);
  const parsed = parseSealKeys(ring.jwks);
  if (!parsed.ok) throw new Error(parsed.error);
  keys = parsed.value;
  truth = await writeStory(A, ring);
  foreign = await writeStory(B, ring);
});

/** Appends to a log of its own inside of a Durable Object and stores it; gives what then stands in the bucket. */
async function write(
  { partition, ...of }: Omit<Sealing, "issuer"> & { partition: string },
  story: (log: Writer) => void,
): Promise<Objects> {
  const namespace = bindings.AGENT_INSTANCE;
  await runInDurableObject(namespace.get(namespace.newUniqueId()), async (_: unknown, state: DurableObjectState) => {
    const log = new TranscriptLog(state.storage.sql, new Kept(state.storage.sql, "AgentInstance", INSTANCE_SHAPES));
    let nowMs = START_MS;
    story({
      log,
      record: (type, fields, body) =>
        log.append({ type, fields, state: null, nowMs: nowMs++, ...(body === undefined ? {} : { body }) }),
      seal: (final = false) => log.seal({ ...of, issuer: ISSUER }, final, nowMs),
    });
    await log.store(bindings.TRANSCRIPTS, partition);
  });
  const objects: Objects = new Map();
  for (const prefix of ["transcripts", "bodies"]) {
    const listed = await bindings.TRANSCRIPTS.list({ prefix: `${prefix}/${partition}/` });
    for (const { key } of listed.objects) {
      objects.set(key, new Uint8Array(await (await bindings.TRANSCRIPTS.get(key))!.arrayBuffer()));
      await bindings.TRANSCRIPTS.delete(key);
    }
  }
  return objects;
}

interface Writer {
  readonly log: TranscriptLog;
  record(type: RecordType, fields: Fields, body?: Parameters<TranscriptLog["appendBody"]>[0]): number;
  seal(final?: boolean): void;
}

const OPEN_BODY = { digest: null, bytes: null, mediaType: null, coding: "identity", complete: false };

const writeStory = (ids: typeof A, sealKeys: KeyRing): Promise<Objects> =>
  write({ log: ids.instance, partition: instancePartition(ids), sealKeys }, (writer) => {
    const { record, seal, log } = writer;
    enrol(writer, ids);
    const request = wholeBody(1, "request", utf8.encode('{"title":"é"}'), "application/json", "identity");
    record("call", { ...ids, body: { ...request.reference } }, request.run);
    const answer = wholeBody(1, "answer", utf8.encode("created"), "text/plain", "identity");
    record("answer", { ...ids, call: 1, body: { ...answer.reference } }, answer.run);
    seal();
    // A long request and a slow answer, over two segments.
    const sent = new BodyWriter(3, "request", UNDECLARED);
    const came = new BodyWriter(3, "answer", UNDECLARED);
    record("call", { ...ids, body: OPEN_BODY }, sent.next(utf8.encode("first half, ")).run!);
    log.appendBody(sent.next(utf8.encode("second half")).run!);
    log.appendBody(came.next(Uint8Array.of(0, 255, 254)).run!);
    const refused = wholeBody(4, "request", utf8.encode("DROP"), null, "identity");
    record("refused", { ...ids, body: { ...refused.reference } }, refused.run);
    seal();
    log.appendBody(came.next(utf8.encode("…")).run!);
    log.appendBody(came.next(new Uint8Array(0)).run!);
    const tail = came.next(utf8.encode("end")).run!;
    const fields = {
      body: { ...came.reference("text/plain", "identity", true) },
      requestBody: { ...sent.reference(null, "as declared", true) },
    };
    record("answer", { ...ids, call: 3, ...fields }, tail);
    record("switched", { ...ids });
    record("ended", { ...ids, cause: "switched" });
    seal(true);
  });

function enrol({ record }: Writer, ids: typeof A): void {
  const claims = wholeBody(0, "claims", utf8.encode('{"sub":"ada"}'), "application/json", "identity");
  record("enrolled", { ...ids, deadline: DEADLINE_MS, claims: { ...claims.reference } }, claims.run);
}

const verify = (objects: Objects, nowMs = LATER_MS, issuer: string | null = ISSUER, by = keys) =>
  verifyTranscripts(
    {
      keys: (prefix) => [...objects.keys()].filter((key) => key.startsWith(prefix)),
      open: async (key) => ok(only(objects.get(key)!)),
    },
    { keys: by, issuer, nowMs },
  );

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

const linesOf = (objects: Objects, key: string): string[] =>
  new TextDecoder().decode(gunzipSync(objects.get(key)!)).split("\n");

/** What an attacker does who can write to the bucket: open, change, close again. */
function rewrite(objects: Objects, key: string, change: (lines: string[]) => readonly string[]): void {
  objects.set(key, gzipSync(utf8.encode(change(linesOf(objects, key)).join("\n"))));
}

const replaceIn =
  (key: string, line: number, from: string | RegExp, to: string) =>
  (objects: Objects): void =>
    rewrite(objects, key, (lines) => {
      const changed = lines.with(line - 1, lines[line - 1]!.replace(from, to));
      if (changed[line - 1] === lines[line - 1]) throw new Error(`nothing to change in ${lines[line - 1]}`);
      return changed;
    });

const drop =
  (...dropped: string[]) =>
  (objects: Objects): void => {
    for (const key of dropped) if (!objects.delete(key)) throw new Error(`no ${key}`);
  };

const swap =
  (key: string, line: number) =>
  (objects: Objects): void =>
    rewrite(objects, key, (lines) => lines.with(line - 1, lines[line]!).with(line, lines[line - 1]!));

/** Writes `prev` anew from a line on, so that the chain holds; only the seal can't be made again. */
function rechain(lines: readonly string[], prev = FIRST_PREV): string[] {
  let before = prev;
  return lines.map((line) => {
    if (!line.includes('"prev"')) return line;
    const chained = line.replace(/"prev":"[0-9a-f]{64}"/, `"prev":"${before}"`);
    before = sha256Hex(chained);
    return chained;
  });
}

/** Changes the first record of a segment of two, and seals it with another key. */
function reseal(objects: Objects, sealKeys: KeyRing, firstSeq: number, prev?: string): void {
  rewrite(objects, segment(firstSeq), (lines) => {
    const before = prev ?? JSON.parse(lines[0]!).prev;
    const changed = rechain([lines[0]!.replace('"at":', '"at":1'), lines[1]!], before);
    const head = sha256Hex(changed[1]!);
    const range = { first: firstSeq, last: firstSeq + 1, prev: before, head };
    return [...changed, writeSealLine(sealKeys, { iss: ISSUER, log: "i-a", ...range, at: START_MS, final: false }), ""];
  });
}

describe("what is true verifies", () => {
  it("nothing given: not ok", async () => {
    expect(await verify(new Map())).toEqual({
      transcripts: [],
      findings: [{ place: "transcripts/", problem: "no transcripts" }],
      bodiesVerified: true,
      ok: false,
    });
  });

  it("a transcript that has ended", async () => {
    expect(await verify(truth)).toEqual({
      transcripts: [
        {
          partition: PARTITION,
          records: 8,
          segments: 3,
          status: "ended",
          openCalls: [],
          erasedBodies: [],
          expiredBodies: [],
          absentBodies: [],
          undigestedBodies: [],
          bodiesAhead: 0,
          clockBack: null,
          findings: [],
        },
      ],
      findings: [],
      bodiesVerified: true,
      ok: true,
    });
  });

  it("two transcripts, and a journal of its day", async () => {
    const journal = journalPartition("admin", "2026-05-01");
    const log = { log: "admin.2026-05-01", partition: journal, sealKeys: ring };
    const open = await write(log, ({ record, seal }) => {
      record("act", { journal: log.log });
      seal();
    });
    const all = new Map([...open, ...foreign, ...truth]);
    const report = await verify(all);
    expect(report.ok).toBe(true);
    expect(report.transcripts.map(({ partition, status }) => [partition, status])).toEqual([
      [PARTITION, "ended"],
      [instancePartition(B), "ended"],
      [journal, "open"],
    ]);
    expect((await verify(open, DAY_END_MS + END_GRACE_MS)).ok).toBe(true);
    expect((await verify(open, DAY_END_MS + END_GRACE_MS + 1)).transcripts[0]!.findings).toEqual([
      { place: segment(1, journal), problem: "cut tail: no sealed end, and the deadline was 2026-05-02T00:05:00.000Z" },
    ]);
  });

  it("an open transcript, with calls that still run, until its deadline and the grace", async () => {
    const objects = new Map(truth);
    drop(segment(5), bodies(5))(objects);
    const { transcripts, ok } = await verify(objects, LATER_MS - 1);
    expect(ok).toBe(true);
    expect(transcripts[0]).toMatchObject({
      status: "open",
      records: 5,
      openCalls: [3],
      undigestedBodies: [{ seq: 3, part: "request" }],
      erasedBodies: [],
    });
  });

  it("bodies that are in the bucket ahead of their segment", async () => {
    const objects = new Map(truth);
    drop(segment(5))(objects);
    const { transcripts, ok } = await verify(objects, START_MS);
    expect(ok).toBe(true);
    expect(transcripts[0]).toMatchObject({ status: "open", bodiesAhead: 1 });
  });

  it("sealed by Ed25519, and by ES256 since a rotation", async () => {
    const [ed, ec] = await Promise.all([newJwk("old"), newJwk("new", "ES256")]);
    const rotated = ringOf(ec, ed);
    const objects = await write({ log: A.instance, partition: PARTITION, sealKeys: ringOf(ed) }, (writer) => {
      enrol(writer, A);
      writer.seal();
      writer.record("switched", { ...A });
      writer.record("ended", { ...A, cause: "switched" });
      writer.log.seal({ log: A.instance, sealKeys: rotated, issuer: ISSUER }, true, START_MS + 10);
    });
    const header = (seq: number) => {
      const { jws } = JSON.parse(linesOf(objects, segment(seq)).at(-2)!) as { jws: string };
      return JSON.parse(atob(jws.split(".")[0]!));
    };
    expect(header(0)).toMatchObject({ alg: "Ed25519", kid: "old" });
    expect(header(1)).toMatchObject({ alg: "ES256", kid: "new" });
    const by = (...known: object[]) => verify(objects, LATER_MS, ISSUER, keysOf(ringOf(...known)));
    expect(await by(ec, ed)).toMatchObject({ ok: true, transcripts: [{ status: "ended", records: 3, findings: [] }] });
    const unknown = "the seal's signature does not verify: no key with its kid is known";
    const problems = async (...known: object[]) => (await by(...known)).transcripts[0]!.findings;
    expect(await problems(ec)).toEqual([{ place: `${segment(0)} line 2`, problem: unknown }]);
    expect((await problems(ed))[0]).toEqual({ place: `${segment(1)} line 3`, problem: unknown });
    const otherAlg = { place: `${segment(1)} line 3`, problem: "the seal's alg is not that of its key" };
    expect((await problems(ed, await newJwk("new")))[0]).toEqual(otherAlg);
  });

  it("a body over several volumes, and an answer of which nothing came", async () => {
    const options = { log: A.instance, partition: PARTITION, sealKeys: ring };
    const objects = await write(options, (writer) => {
      const { record, seal, log } = writer;
      enrol(writer, A);
      record("call", { ...A, body: null });
      const salt = new Uint8Array(SALT_BYTES).fill(7);
      const runs = [97, 98, 99].map((char) => new Uint8Array(1_900_000).fill(char));
      for (const [index, bytes] of [...runs, new Uint8Array(0)].entries())
        log.appendBody({ of: 1, part: "answer", index, salt: index === 0 ? salt : null, bytes, isRaw: false });
      const came = { digest: sha256Hex(salt, ...runs), bytes: 5_700_000, mediaType: "text/plain" };
      record("answer", { ...A, call: 1, body: { ...came, coding: "identity", complete: true } });
      record("call", { ...A, body: null });
      const nothing = new BodyWriter(3, "answer", UNDECLARED).reference(null, "unknown", false);
      record("answer", { ...A, call: 3, body: { ...nothing, mayMiss: 65_536 } });
      record("call", { ...A, body: null });
      record("answer", { ...A, call: 5, body: { ...nothing, digest: null, mayMiss: 65_536 } });
      seal();
    });
    const second = bodies(0).replace(".jsonl", ".001.jsonl");
    expect([...objects.keys()]).toContain(second);
    expect(await verify(objects, START_MS)).toMatchObject({ ok: true, transcripts: [{ erasedBodies: [] }] });
    drop(second)(objects);
    expect((await verify(objects, START_MS)).transcripts[0]!.findings).toEqual([
      {
        place: `${bodies(0)} line 2 (seq 1, answer)`,
        problem: `a part of a body: 3800000 of the 5700000 bytes of ${segment(0)} line 3 (seq 2)`,
      },
    ]);
  });
});

describe("what was changed afterwards has its place named, and no other", () => {
  const table: [name: string, tamper: (objects: Objects) => void, place: string, problem: string][] = [
    [
      "one changed byte of a record",
      replaceIn(segment(0), 2, '"human":"h-ada"', '"human":"h-adb"'),
      `${segment(0)} line 2 (seq 1)`,
      "altered: its bytes are not those that seq 2 names",
    ],
    [
      "one space more in a record",
      replaceIn(segment(0), 2, "{", "{ "),
      `${segment(0)} line 2 (seq 1)`,
      "altered: its bytes are not those that seq 2 names",
    ],
    [
      "a changed prev",
      replaceIn(segment(3), 2, /"prev":"./, '"prev":"g'),
      `${segment(3)} line 2 (seq 4)`,
      "not a record: prev",
    ],
    [
      "another prev",
      replaceIn(segment(5), 2, /"prev":"[0-9a-f]{64}"/, `"prev":"${"5".repeat(64)}"`),
      `${segment(5)} line 2 (seq 6)`,
      "altered: its bytes are not those that seq 7 names",
    ],
    [
      "a changed last record",
      replaceIn(segment(3), 2, '"at":', '"at":1'),
      `${segment(3)} line 2 (seq 4)`,
      "altered: its bytes are not those that the seal names",
    ],
    [
      "a changed seq",
      replaceIn(segment(5), 1, '"seq":5', '"seq":6'),
      `${segment(5)} line 1 (seq 6)`,
      "seq 6 where seq 5 belongs",
    ],
    [
      "a changed digest of a body",
      replaceIn(segment(0), 3, /"digest":"[0-9a-f]{8}/, '"digest":"00000000'),
      `${segment(0)} line 3 (seq 2)`,
      "altered: its bytes are not those that the seal names",
    ],
    [
      "a record taken out",
      (objects) => rewrite(objects, segment(0), (lines) => lines.toSpliced(1, 1)),
      `${segment(0)} line 2 (seq 2)`,
      "seq 2 where seq 1 belongs",
    ],
    [
      "the last record taken out",
      (objects) => rewrite(objects, segment(3), (lines) => lines.toSpliced(1, 1)),
      `${segment(3)} line 2`,
      "the seal ends with seq 4, the records end with seq 3",
    ],
    [
      "a record doubled",
      (objects) => rewrite(objects, segment(0), (lines) => lines.toSpliced(1, 0, lines[1]!)),
      `${segment(0)} line 3 (seq 1)`,
      "seq 1 where seq 2 belongs",
    ],
    [
      "a record rewritten, and the chain behind it",
      (objects) =>
        rewrite(objects, segment(0), (lines) => rechain(lines.with(1, lines[1]!.replace('"at":', '"at":1')))),
      `${segment(0)} line 3 (seq 2)`,
      "altered: its bytes are not those that the seal names",
    ],
    [
      "a record that is not JSON",
      replaceIn(segment(0), 2, "{", "["),
      `${segment(0)} line 2`,
      "not strict JSON: not JSON",
    ],
    [
      "a record that names a key twice",
      replaceIn(segment(0), 2, "{", '{"v":1,'),
      `${segment(0)} line 2`,
      "not strict JSON: duplicate key at offset 7",
    ],
    [
      "a version that nobody knows",
      replaceIn(segment(0), 2, '"v":1', '"v":2'),
      `${segment(0)} line 2 (seq 1)`,
      "a version of the format that is not known",
    ],
    [
      "a version of the seal that nobody knows",
      replaceIn(segment(3), 3, '"v":1', '"v":2'),
      `${segment(3)} line 3`,
      "the seal has a version of the format that is not known",
    ],
    [
      "a version of a body's line that nobody knows",
      replaceIn(bodies(0), 3, '"v":1', '"v":2'),
      `${bodies(0)} line 3`,
      "a version of the format that is not known",
    ],
    [
      "a type that nobody knows",
      replaceIn(segment(0), 2, '"type":"call"', '"type":"cull"'),
      `${segment(0)} line 2 (seq 1)`,
      "a type of record that is not known",
    ],
    [
      "no seal",
      (objects) => rewrite(objects, segment(3), (lines) => lines.toSpliced(2, 1)),
      `${segment(3)} line 2`,
      "the last line is not a seal",
    ],
    [
      "a second seal",
      (objects) => rewrite(objects, segment(3), (lines) => lines.toSpliced(0, 0, lines[2]!)),
      `${segment(3)} line 1`,
      "a seal that is not the last line",
    ],
    [
      "a changed signature",
      replaceIn(segment(3), 3, /\.(.)([^.]{84})(.)"/, '.$1$2"'),
      `${segment(3)} line 3`,
      "the seal: not canonical base64url",
    ],
    [
      "an unsigned field beside the seal",
      replaceIn(segment(3), 3, '"type":"seal"', '"type":"seal","note":"ok"'),
      `${segment(3)} line 3`,
      "the seal's line is not spelled as it was written",
    ],
    [
      "a seal of another segment",
      (objects) => rewrite(objects, segment(3), (lines) => lines.with(2, linesOf(objects, segment(0))[3]!)),
      `${segment(3)} line 3`,
      "the seal begins with seq 0, the object's name says 3",
    ],
    [
      "no newline at the end",
      (objects) => rewrite(objects, segment(0), (lines) => lines.slice(0, -1)),
      `${segment(0)} line 4`,
      "does not end with a newline",
    ],
    ["an empty segment", (objects) => rewrite(objects, segment(3), () => []), segment(3), "holds nothing"],
    [
      "a segment of nothing but a seal",
      (objects) => rewrite(objects, segment(3), (lines) => lines.slice(2)),
      segment(3),
      "holds no record",
    ],
    [
      "an empty object",
      (objects) => void objects.set(segment(3), new Uint8Array(0)),
      segment(3),
      "is not one whole gzip member",
    ],
    [
      "a byte behind the gzip member",
      (objects) => void objects.set(segment(3), Uint8Array.of(...objects.get(segment(3))!, 0)),
      segment(3),
      "is not one whole gzip member",
    ],
    [
      "a second gzip member",
      (objects) =>
        void objects.set(segment(3), Uint8Array.of(...objects.get(segment(3))!, ...gzipSync(utf8.encode("x")))),
      segment(3),
      "is not one whole gzip member",
    ],
    [
      "a cut object",
      (objects) => void objects.set(segment(3), objects.get(segment(3))!.slice(0, -1)),
      segment(3),
      "is not one whole gzip member",
    ],
    [
      "an object that expands without end",
      (objects) => void objects.set(segment(3), gzipSync(new Uint8Array(OBJECT_MAX_BYTES + 1))),
      segment(3),
      `expands to more than ${OBJECT_MAX_BYTES} bytes`,
    ],
    ["the first segment gone", drop(segment(0)), segment(0), "missing: the segment after it begins with seq 3"],
    ["a segment in the middle gone", drop(segment(3)), segment(3), "missing: the segment after it begins with seq 5"],
    [
      "the tail cut off",
      drop(segment(5), bodies(5)),
      segment(5),
      "cut tail: no sealed end, and the deadline was 2026-05-01T13:00:00.000Z",
    ],
    [
      "a segment of another instance",
      (objects) => void objects.set(segment(3), foreign.get(segment(3, instancePartition(B)))!),
      `${segment(3)} line 3`,
      "a foreign segment: its seal is of i-b, not of i-a",
    ],
    [
      "a record of another instance",
      (objects) =>
        rewrite(objects, segment(3), (lines) => lines.with(0, linesOf(foreign, segment(3, instancePartition(B)))[0]!)),
      `${segment(3)} line 1 (seq 3)`,
      "altered: its bytes are not those that seq 4 names",
    ],
    [
      "a segment sealed by a stranger",
      (objects) => reseal(objects, stranger, 3),
      `${segment(3)} line 3`,
      "the seal's signature does not verify: no key with its kid is known",
    ],
    [
      "a segment sealed by a stranger under a known kid",
      (objects) => reseal(objects, impostor, 3),
      `${segment(3)} line 3`,
      "the seal's signature does not verify",
    ],
    [
      "an object with a strange name",
      (objects) => void objects.set(segment(0).replace("0000000000", "00"), new Uint8Array(0)),
      segment(0).replace("0000000000", "00"),
      "not the name of a segment or of its bodies",
    ],
    [
      "a first volume with a number",
      (objects) => void objects.set(bodies(0).replace(".jsonl", ".000.jsonl"), new Uint8Array(0)),
      bodies(0).replace(".jsonl", ".000.jsonl"),
      "not the name of a segment or of its bodies",
    ],
    [
      "a changed body",
      replaceIn(bodies(0), 3, "created", "creeted"),
      `${bodies(0)} line 3 (seq 1, answer)`,
      `altered: not the digest of ${segment(0)} line 3 (seq 2)`,
    ],
    [
      "a changed salt",
      replaceIn(bodies(0), 3, /"salt":"[0-9a-f]{4}/, '"salt":"0000'),
      `${bodies(0)} line 3 (seq 1, answer)`,
      `altered: not the digest of ${segment(0)} line 3 (seq 2)`,
    ],
    [
      "a changed run of a body in an earlier segment than its answer",
      replaceIn(bodies(3), 3, '"base64":"AP/+"', '"base64":"AP//"'),
      `${bodies(3)} line 3 (seq 3, answer)`,
      `altered in one of its 4 runs: not the digest of ${segment(5)} line 1 (seq 5)`,
    ],
    [
      "a changed run of a long request",
      replaceIn(bodies(3), 2, "second", "Second"),
      `${bodies(3)} line 1 (seq 3, request)`,
      `altered in one of its 2 runs: not the digest of ${segment(5)} line 1 (seq 5)`,
    ],
    [
      "a changed body of a refusal",
      replaceIn(bodies(3), 4, "DROP", "READ"),
      `${bodies(3)} line 4 (seq 4, request)`,
      `altered: not the digest of ${segment(3)} line 2 (seq 4)`,
    ],
    [
      "a run taken out",
      (objects) => rewrite(objects, bodies(5), (lines) => lines.toSpliced(0, 1)),
      `${bodies(5)} line 1 (seq 3, answer)`,
      "run 2 of a body where its run 1 belongs",
    ],
    [
      "the last run taken out",
      (objects) => rewrite(objects, bodies(5), (lines) => lines.toSpliced(2, 1)),
      `${bodies(3)} line 3 (seq 3, answer)`,
      `a part of a body: 6 of the 9 bytes of ${segment(5)} line 1 (seq 5)`,
    ],
    [
      "two runs swapped",
      swap(bodies(3), 1),
      `${bodies(3)} line 1 (seq 3, request)`,
      "run 1 of a body where its run 0 belongs",
    ],
    [
      "a run doubled",
      (objects) => rewrite(objects, bodies(0), (lines) => lines.toSpliced(1, 0, lines[1]!)),
      `${bodies(0)} line 3 (seq 1, request)`,
      "run 0 of a body where its run 1 belongs",
    ],
    [
      "a longer body",
      replaceIn(bodies(0), 3, "created", "created!"),
      `${bodies(0)} line 3 (seq 1, answer)`,
      `more than the 7 bytes of ${segment(0)} line 3 (seq 2)`,
    ],
    [
      "a body moved to another segment",
      (objects) => {
        const moved = linesOf(objects, bodies(0))[2]!;
        rewrite(objects, bodies(0), (lines) => lines.toSpliced(2, 1));
        rewrite(objects, bodies(3), (lines) => lines.toSpliced(0, 0, moved));
      },
      `${bodies(3)} line 1 (seq 1, answer)`,
      "a run among the bodies of a segment outside of its call's time",
    ],
    [
      "a salt on a later run",
      replaceIn(bodies(3), 2, '"index":1', `"index":1,"salt":"${"0".repeat(32)}"`),
      `${bodies(3)} line 2 (seq 3, request)`,
      "a salt belongs to run 0, and to no other",
    ],
    [
      "a field more beside a body",
      replaceIn(bodies(0), 3, '"v":1', '"v":1,"x":1'),
      `${bodies(0)} line 3`,
      "not a run of a body: ",
    ],
    [
      "another spelling of a body",
      replaceIn(bodies(3), 3, '"base64":"AP/+"', '"base64":"AP/+ "'),
      `${bodies(3)} line 3`,
      "not a run of a body as it was written",
    ],
    [
      "a line of bodies that is not JSON",
      replaceIn(bodies(0), 3, "{", ""),
      `${bodies(0)} line 3`,
      "not strict JSON: not JSON",
    ],
    [
      "a broken object of bodies",
      (objects) => void objects.set(bodies(3), objects.get(bodies(3))!.slice(0, -1)),
      bodies(3),
      "is not one whole gzip member",
    ],
    [
      "no newline at the end of bodies",
      (objects) => rewrite(objects, bodies(0), (lines) => lines.slice(0, -1)),
      `${bodies(0)} line 3`,
      "does not end with a newline",
    ],
    [
      "bodies of a segment that is not there",
      (objects) => void objects.set(bodies(8), objects.get(bodies(0))!),
      bodies(8),
      "bodies of a segment that is not there",
    ],
  ];

  it.each(table)("%s", async (_name, tamper, place, problem) => {
    const objects = new Map(truth);
    tamper(objects);
    const report = await verify(objects);
    expect(report.ok).toBe(false);
    expect([...report.findings, ...report.transcripts.flatMap(({ findings }) => findings)]).toEqual([
      { place, problem },
    ]);
  });

  it("one of two objects of a body gone, and the bodies that stood in it alone", async () => {
    const objects = new Map(truth);
    drop(bodies(3))(objects);
    const absent = "its request body is absent, and nothing accounts for that";
    expect((await verify(objects)).transcripts[0]!.findings).toEqual([
      { place: `${bodies(5)} line 1 (seq 3, answer)`, problem: "run 1 of a body where its run 0 belongs" },
      { place: `${segment(5)} line 1 (seq 5)`, problem: absent },
      { place: `${segment(3)} line 2 (seq 4)`, problem: absent },
    ]);
  });

  it("a body that no record refers to, in the place of one that is referred to", async () => {
    const objects = new Map(truth);
    replaceIn(bodies(0), 3, '"seq":1', '"seq":2')(objects);
    expect((await verify(objects)).transcripts[0]!.findings).toEqual([
      { place: `${bodies(0)} line 3 (seq 2, answer)`, problem: "a body that no record refers to" },
      {
        place: `${segment(0)} line 3 (seq 2)`,
        problem: "its answer body is absent, and nothing accounts for that",
      },
    ]);
  });

  it("a forked transcript, sealed with the same keys", async () => {
    const fork = await writeStory(A, ring);
    const objects = new Map(truth).set(segment(3), fork.get(segment(3))!);
    const problem = "the seal does not follow the head of the segment before";
    expect((await verify(objects)).transcripts[0]!.findings).toEqual([
      { place: `${segment(3)} line 3`, problem },
      { place: `${segment(5)} line 4`, problem },
      {
        place: `${bodies(3)} line 4 (seq 4, request)`,
        problem: `altered: not the digest of ${segment(3)} line 2 (seq 4)`,
      },
    ]);
  });

  it("a chain that begins elsewhere, under a seal that proves nothing", async () => {
    const objects = new Map(truth);
    reseal(objects, impostor, 3, "7".repeat(64));
    expect((await verify(objects)).transcripts[0]!.findings).toEqual([
      { place: `${segment(3)} line 3`, problem: "the seal's signature does not verify" },
      { place: `${segment(3)} line 1 (seq 3)`, problem: "prev is not the head of the segment before" },
    ]);
  });

  it("a segment between two that follow each other", async () => {
    const objects = new Map(truth).set(segment(4), truth.get(segment(3))!);
    expect((await verify(objects)).transcripts[0]!.findings[0]).toEqual({
      place: segment(4),
      problem: "begins before seq 5, which comes next",
    });
  });

  it("bodies of no segment, or of one after the next", async () => {
    const only = new Map([[bodies(0), truth.get(bodies(0))!]]);
    const problem = "bodies of a segment that is not there";
    expect((await verify(only)).transcripts[0]!.findings).toEqual([{ place: bodies(0), problem }]);
    const open = new Map(truth).set(bodies(6), truth.get(bodies(5))!);
    drop(segment(5), bodies(5))(open);
    expect((await verify(open, START_MS)).transcripts[0]!.findings).toEqual([{ place: bodies(6), problem }]);
  });

  it("broken bodies are not erased ones", async () => {
    const objects = new Map(truth).set(bodies(0), new Uint8Array(0));
    expect((await verify(objects)).transcripts[0]).toMatchObject({
      erasedBodies: [],
      findings: [{ place: bodies(0) }],
    });
  });

  it("two records swapped: both places", async () => {
    const objects = new Map(truth);
    swap(segment(0), 2)(objects);
    expect((await verify(objects)).transcripts[0]!.findings).toEqual([
      { place: `${segment(0)} line 2 (seq 2)`, problem: "seq 2 where seq 1 belongs" },
      { place: `${segment(0)} line 3 (seq 1)`, problem: "seq 1 where seq 3 belongs" },
    ]);
  });

  it("several changes: all of them", async () => {
    const objects = new Map(truth);
    replaceIn(segment(0), 2, '"human":"h-ada"', '"human":"h-adb"')(objects);
    replaceIn(segment(5), 2, '"at":', '"at":1')(objects);
    replaceIn(bodies(0), 1, "ada", "bob")(objects);
    drop(segment(3))(objects);
    expect((await verify(objects)).transcripts[0]!.findings.map(({ place }) => place)).toEqual([
      `${segment(0)} line 2 (seq 1)`,
      segment(3),
      `${segment(5)} line 2 (seq 6)`,
      `${bodies(0)} line 1 (seq 0, claims)`,
    ]);
  });

  it("a transcript under another partition", async () => {
    const moved = new Map([...truth].map(([key, bytes]) => [key.replace("human=h-ada", "human=h-bob"), bytes]));
    const { transcripts } = await verify(moved);
    expect(transcripts[0]!.findings[0]).toEqual({
      place: `${segment(0).replace("h-ada", "h-bob")} line 1 (seq 0)`,
      problem: "a foreign record: its human is not h-bob",
    });
    expect(transcripts[0]!.findings).toHaveLength(8);
  });

  it("another issuer, or no right key at all", async () => {
    const places = [`${segment(0)} line 4`, `${segment(3)} line 3`, `${segment(5)} line 4`];
    const other = await verify(truth, LATER_MS, "https://other.test");
    expect(other.transcripts[0]!.findings).toEqual(
      places.map((place) => ({ place, problem: `the seal is of issuer ${ISSUER}, not of https://other.test` })),
    );
    const strange = await verify(await writeStory(A, stranger));
    expect(strange.transcripts[0]!.findings.map(({ place }) => place)).toEqual(places);
    expect(strange.transcripts[0]!.status).toBe("open");
  });

  it("bounds what it says about one transcript", async () => {
    const objects = new Map(truth);
    rewrite(objects, segment(0), () => Array.from({ length: MAX_FINDINGS + 50 }, () => "x"));
    const { findings } = (await verify(objects)).transcripts[0]!;
    expect(findings).toHaveLength(MAX_FINDINGS + 1);
    expect(findings.at(-1)!.problem).toMatch(/^\d+ more findings$/);
  });
});

describe("what a writer with the keys must not have written", () => {
  const options = { log: A.instance, partition: PARTITION, sealKeys: ring };
  const enrolment = { ...A, deadline: DEADLINE_MS, claims: { ...OPEN_BODY, digest: "0".repeat(64), bytes: 0 } };
  const table: [name: string, story: (writer: Writer) => void, place: string, problem: string][] = [
    [
      "no enrolment",
      ({ record }) => record("call", { ...A, body: null }),
      `${segment(0)} line 1 (seq 0)`,
      "record 0 is not the enrolment",
    ],
    [
      "a second enrolment",
      ({ record }) => [record("enrolled", enrolment), record("enrolled", enrolment)],
      `${segment(0)} line 2 (seq 1)`,
      "a second enrolment",
    ],
    [
      "no deadline",
      ({ record }) => record("enrolled", { ...enrolment, deadline: null }),
      `${segment(0)} line 1 (seq 0)`,
      "not a record of type enrolled: deadline",
    ],
    [
      "an answer to nothing",
      ({ record }) => [record("enrolled", enrolment), record("answer", { ...A, call: 0, body: null })],
      `${segment(0)} line 2 (seq 1)`,
      "answers seq 0, which is no call before it",
    ],
    [
      "two answers",
      ({ record }) => [
        record("enrolled", enrolment),
        record("call", { ...A, body: null }),
        record("answer", { ...A, call: 1, body: null }),
        record("answer", { ...A, call: 1, body: null }),
      ],
      `${segment(0)} line 4 (seq 3)`,
      "a second answer to the call of seq 1",
    ],
    [
      "a request body stated twice",
      ({ record }) => [
        record("enrolled", enrolment),
        record("call", { ...A, body: null }),
        record("answer", {
          ...A,
          call: 1,
          body: null,
          requestBody: { ...OPEN_BODY, digest: "0".repeat(64), bytes: 1 },
        }),
      ],
      `${segment(0)} line 3 (seq 2)`,
      "states a request body that its call did not leave open",
    ],
    [
      "an admin's act in the transcript of an instance",
      ({ record }) => [record("enrolled", enrolment), record("act", { ...A })],
      `${segment(0)} line 2 (seq 1)`,
      "a record of type act in the transcript of an instance",
    ],
    [
      "a record after the end",
      ({ record }) => [record("enrolled", enrolment), record("ended", { ...A }), record("refused", { ...A })],
      `${segment(0)} line 3 (seq 2)`,
      "stands after the end",
    ],
    [
      "an end without a final seal",
      ({ record }) => [record("enrolled", enrolment), record("ended", { ...A })],
      `${segment(0)} line 2 (seq 1)`,
      "the end, and the seal is not final",
    ],
    [
      "a final seal without an end",
      ({ record, seal }) => [record("enrolled", enrolment), seal(true)],
      `${segment(0)} line 2`,
      "the seal is final, and the last record is not the end",
    ],
    [
      "an end that leaves a call open",
      ({ record, seal }) => [
        record("enrolled", enrolment),
        record("call", { ...A, body: null }),
        record("ended", { ...A }),
        seal(true),
      ],
      `${segment(0)} line 2 (seq 1)`,
      "a call without an answer, and the transcript ended",
    ],
  ];

  it.each(table)("%s", async (_name, story, place, problem) => {
    const objects = await write(options, (writer) => {
      story(writer);
      writer.seal();
    });
    const { transcripts, ok } = await verify(objects, START_MS);
    expect(ok).toBe(false);
    expect(transcripts[0]!.findings).toEqual([{ place, problem }]);
  });

  it("a segment after the sealed end", async () => {
    const objects = new Map(truth);
    objects.set(segment(8), truth.get(segment(5))!);
    expect((await verify(objects)).transcripts[0]!.findings[0]).toEqual({
      place: segment(8),
      problem: "a segment after the sealed end",
    });
  });
});

describe("parseSealKeys", () => {
  it.each([
    ["nothing", undefined],
    ["no key", { keys: [] }],
    ["another kind of key", { keys: [{ kty: "EC", crv: "P-256", kid: "a", x: "A".repeat(43), y: "A".repeat(43) }] }],
    ["one kid twice", { keys: [1, 2].map(() => ({ kty: "OKP", crv: "Ed25519", kid: "a", x: "A".repeat(43) })) }],
  ])("refuses %s", (_name, jwks) => {
    expect(parseSealKeys(jwks).ok).toBe(false);
  });
});
