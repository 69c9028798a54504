import * as z from "zod";
import type { JsonObject } from "../grant/compact.ts";
import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { ENVELOPE_VERSION, RECORD_TYPES, type RecordType, sha256Hex, UNKNOWN_VERSION } from "./envelope.ts";
import { readSealLine, type Seal } from "./seal.ts";
import { type Findings, lineOf } from "./verify-findings.ts";
import type { SealKeys } from "./verify-keys.ts";
import type { SegmentName } from "./verify-layout.ts";
import type { Lines } from "./verify-lines.ts";

/** A record whose frame is sound and whose bytes nothing contradicts. */
export interface ReadRecord {
  readonly place: string;
  readonly type: RecordType;
  readonly seq: number;
  readonly at: number;
  readonly envelope: JsonObject;
}

/** What the segments before this one lead to. Null: can't be known, because of what is wrong with them. */
export interface Reached {
  readonly nextSeq: number | null;
  readonly head: string | null;
}

export interface ReadSegment {
  readonly records: readonly ReadRecord[];
  /** Null: can't be known. */
  readonly nextSeq: number | null;
  /** Verified, and of this log; else null. */
  readonly seal: Seal | null;
  readonly sealPlace: string;
  readonly sound: boolean;
}

export interface SegmentContext {
  readonly keys: SealKeys;
  readonly issuer: string | null;
  readonly findings: Findings;
}

interface Line {
  readonly index: number;
  readonly hash: string;
  /** Null where the line is no record. */
  readonly frame: z.output<typeof frameShape> | null;
  readonly envelope: JsonObject;
  /** In its place by `seq`. */
  inPlace: boolean;
  /** Already named by a finding: what it says is not built upon. */
  blamed: boolean;
}

const frameShape = z.looseObject({
  v: z.literal(ENVELOPE_VERSION),
  type: z.enum(RECORD_TYPES),
  seq: z.number().int().nonnegative(),
  at: z.number().int().nonnegative(),
  prev: z.string().regex(/^[0-9a-f]{64}$/),
});

/** Derives from a segment's bytes what its seal and its neighbours must say. Goes on after each finding. */
export function readSegment(name: SegmentName, read: Lines, reached: Reached, context: SegmentContext): ReadSegment {
  const { findings } = context;
  const { key } = name;
  const last = read.lines.length - 1;
  let sound = true;
  const find = (place: string, problem: string): void => {
    sound = false;
    findings.add(place, problem);
  };
  if (last < 0) find(key, "holds nothing");
  else if (!read.terminated) find(lineOf(key, last), "does not end with a newline");

  const sealPlace = lineOf(key, last);
  const sealed = last < 0 ? null : readSeal(sealPlace, read.lines[last]!, name, context, find);
  if (sealed === "foreign") return { records: [], nextSeq: null, seal: null, sealPlace, sound };
  const seal = sealed === "no seal" ? null : sealed;
  const lines = (sealed === "no seal" ? read.lines : read.lines.slice(0, -1)).map((bytes, index) =>
    parseRecord(bytes, index, (problem, seq) => find(lineOf(key, index, seq), problem)),
  );
  const nextSeq = alignSeqs(lines, name, find);
  if (last >= 0 && lines.length === 0) find(key, "holds no record");
  if (seal !== null && lines.length > 0) {
    if (seal.last !== nextSeq - 1)
      find(sealPlace, `the seal ends with seq ${seal.last}, the records end with seq ${nextSeq - 1}`);
    if (reached.head !== null && seal.prev !== reached.head)
      find(sealPlace, "the seal does not follow the head of the segment before");
  }
  followChain(key, lines, seal !== null && seal.last === nextSeq - 1 ? seal.head : null, find);
  const [first] = lines;
  const before = seal?.prev ?? reached.head;
  if (first?.frame && first.inPlace && !first.blamed && before !== null && first.frame.prev !== before)
    find(lineOf(key, 0, first.frame.seq), "prev is not the head of the segment before");

  const records = lines.flatMap(({ index, frame, envelope, blamed }) =>
    frame === null || blamed
      ? []
      : [{ place: lineOf(key, index, frame.seq), type: frame.type, seq: frame.seq, at: frame.at, envelope }],
  );
  const isKnown = lines.some(({ frame }) => frame !== null);
  return { records, nextSeq: seal !== null ? seal.last + 1 : isKnown ? nextSeq : null, seal, sealPlace, sound };
}

type Find = (place: string, problem: string) => void;

/** Null: there is a seal, and it seals nothing. */
function readSeal(
  place: string,
  bytes: Uint8Array,
  { partition, firstSeq }: SegmentName,
  { keys, issuer }: SegmentContext,
  find: Find,
): Seal | null | "no seal" | "foreign" {
  const strict = parseStrictJsonBytes(bytes);
  const line = strict.ok ? (strict.value as JsonObject | null) : null;
  // A record in the last line's place is read as a record as well; anything else there can only be meant as the seal.
  if (line !== null && frameShape.safeParse(line).success) {
    find(place, "the last line is not a seal");
    return "no seal";
  }
  const text = new TextDecoder().decode(bytes);
  const seal = readSealLine(text, keys);
  if (!seal.ok) find(place, seal.error);
  // The chain does not cover this line, so it is held to the one spelling that its writer has.
  else if (text !== JSON.stringify({ v: 1, type: "seal", jws: line?.["jws"] }))
    find(place, "the seal's line is not spelled as it was written");
  else if (seal.value.log !== partition.log) {
    find(place, `a foreign segment: its seal is of ${seal.value.log}, not of ${partition.log}`);
    return "foreign";
  } else if (issuer !== null && seal.value.iss !== issuer)
    find(place, `the seal is of issuer ${seal.value.iss}, not of ${issuer}`);
  else if (seal.value.first !== firstSeq)
    find(place, `the seal begins with seq ${seal.value.first}, the object's name says ${firstSeq}`);
  else return seal.value;
  return null;
}

function parseRecord(bytes: Uint8Array, index: number, find: (problem: string, seq?: number) => void): Line {
  const line = { index, hash: sha256Hex(bytes), frame: null, envelope: {}, inPlace: false, blamed: true };
  const strict = parseStrictJsonBytes(bytes);
  if (!strict.ok) {
    find(`not strict JSON: ${strict.error}`);
    return line;
  }
  const frame = frameShape.safeParse(strict.value);
  if (!frame.success) {
    const field = frame.error.issues[0]?.path[0];
    const value = strict.value as JsonObject | null;
    const seq = value?.["seq"];
    const said = typeof seq === "number" ? seq : undefined;
    if (value?.["type"] === "seal") find("a seal that is not the last line");
    else if (field === "v") find(UNKNOWN_VERSION, said);
    else if (field === "type") find("a type of record that is not known", said);
    else find(`not a record${field === undefined ? "" : `: ${String(field)}`}`, said);
    return line;
  }
  return { ...line, frame: frame.data, envelope: strict.value as JsonObject, blamed: false };
}

/** Every record must have the `seq` that its place gives it. Returns the one after the last. */
function alignSeqs(lines: readonly Line[], { key, firstSeq }: SegmentName, find: Find): number {
  let expected = firstSeq;
  for (const line of lines) {
    if (line.frame === null) {
      // It stands for a record, unless the next one says that nothing is missing.
      if (lines[line.index + 1]?.frame?.seq !== expected) expected++;
      continue;
    }
    const { seq } = line.frame;
    line.inPlace = seq === expected;
    if (line.inPlace) {
      expected++;
      continue;
    }
    find(lineOf(key, line.index, seq), `seq ${seq} where seq ${expected} belongs`);
    line.blamed = true;
    // One number is wrong if the next record goes on as if it were right; if not, go on from what stands here.
    if (lines[line.index + 1]?.frame?.seq === expected + 1) expected++;
    else expected = Math.max(expected, seq + 1);
  }
  return expected;
}

/**
 * From the end to the beginning: what the seal signs is authentic, so is its `prev`, and so on. The first line whose
 * bytes are not what is signed behind it is the altered one. Before it nothing is proven or disproven until the
 * chain can be taken up again, which it is at the next line that stands in its place.
 */
function followChain(key: string, lines: readonly Line[], head: string | null, find: Find): void {
  let stated = head;
  let by = "the seal";
  for (const line of lines.toReversed()) {
    if (stated !== null && line.inPlace && line.hash !== stated) {
      find(lineOf(key, line.index, line.frame?.seq ?? null), `altered: its bytes are not those that ${by} names`);
      line.blamed = true;
    }
    stated = line.blamed || !line.inPlace ? null : (line.frame?.prev ?? null);
    by = `seq ${line.frame?.seq}`;
  }
}
