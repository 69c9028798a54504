import { FIRST_PREV } from "./envelope.ts";
import { segmentKey } from "./layout.ts";
import { BodyReader } from "./verify-bodies.ts";
import { type Finding, Findings } from "./verify-findings.ts";
import type { SealKeys } from "./verify-keys.ts";
import { type ObjectName, type Partition, parseObjectKey } from "./verify-layout.ts";
import { readLines } from "./verify-lines.ts";
import { type BodyName, RecordReader } from "./verify-records.ts";
import { type Reached, type ReadRecord, readSegment } from "./verify-segment.ts";

/** After the deadline that a transcript states, how long its sealed end may take to reach the bucket. */
export const END_GRACE_MS = 600_000;

/** A copy of the bucket. Keys as in the bucket; bytes as stored, compressed. */
export interface TranscriptObjects {
  /** In any order. */
  keys(): AsyncIterable<string> | Iterable<string>;
  /** Null: can't be read. */
  get(key: string): Promise<Uint8Array | null>;
}

export interface VerifyOptions {
  readonly keys: SealKeys;
  /** Whose seals these must be; null: of anyone who holds one of the keys. */
  readonly issuer: string | null;
  readonly nowMs: number;
  /** Hears each record that nothing contradicts, of one transcript after the other and in order. */
  readonly onRecord?: (partition: Partition, record: ReadRecord) => void;
}

export interface TranscriptReport {
  /** `human=…/task=…/instance=…` or `journal=…/day=…`. */
  readonly partition: string;
  readonly records: number;
  readonly segments: number;
  /** `ended` only by a sealed end. */
  readonly status: "open" | "ended";
  /** `seq` of calls that have no answer. */
  readonly openCalls: readonly number[];
  /** Stated by the records, and nothing of it is here. Lawful, so no finding. */
  readonly erasedBodies: readonly BodyName[];
  /** Here, but no record states a digest yet, or ever (the object was reset while it came): nobody can verify them. */
  readonly undigestedBodies: readonly BodyName[];
  /** Objects with bodies of the next segment, which is not here yet: bodies go first. */
  readonly bodiesAhead: number;
  readonly findings: readonly Finding[];
}

export interface VerifyReport {
  readonly transcripts: readonly TranscriptReport[];
  /** What belongs to no transcript. */
  readonly findings: readonly Finding[];
  readonly ok: boolean;
}

/**
 * Re-derives everything that transcripts claim from the bytes of a copy of the bucket: frames, chain, seals, what each
 * record allows after it, and every body. It never stops at the first finding.
 *
 * What it can't see: an open transcript whose last segments are gone looks like one that is not as far yet, and one
 * that is gone as a whole like one that never was. The first ends at the deadline that record 0 states: past it (and
 * `END_GRACE_MS`) there must be a sealed end. Until then `status` is "open", which promises nothing about the tail.
 */
export async function verifyTranscripts(objects: TranscriptObjects, options: VerifyOptions): Promise<VerifyReport> {
  const stray = new Findings();
  const partitions = new Map<string, { partition: Partition; segments: ObjectName[]; bodies: ObjectName[] }>();
  for await (const key of objects.keys()) {
    const name = parseObjectKey(key);
    if (name === undefined) {
      stray.add(key, "not the name of a segment or of its bodies");
      continue;
    }
    const { partition } = name;
    const group = partitions.get(partition.path) ?? { partition, segments: [], bodies: [] };
    partitions.set(partition.path, group);
    (name.volume === null ? group.segments : group.bodies).push(name);
  }
  if (partitions.size === 0) stray.add("transcripts/", "no transcripts");
  const transcripts: TranscriptReport[] = [];
  const inOrder = [...partitions.keys()].sort();
  for (const path of inOrder) {
    const { partition, segments, bodies } = partitions.get(path)!;
    transcripts.push(await verifyTranscript(objects, options, partition, segments, bodies));
  }
  const ok = stray.all.length === 0 && transcripts.every(({ findings }) => findings.length === 0);
  return { transcripts, findings: stray.all, ok };
}

async function verifyTranscript(
  objects: TranscriptObjects,
  options: VerifyOptions,
  partition: Partition,
  segments: readonly ObjectName[],
  bodies: readonly ObjectName[],
): Promise<TranscriptReport> {
  const findings = new Findings();
  const records = new RecordReader(partition, findings);
  const { reached, isEnded } = await verifySegments(objects, options, partition, segments, records, findings);
  const { deadlineMs } = records;
  const { nextSeq, head } = reached;
  // Where the last segment is not sound, that is the finding, and whether it was the end can't be told.
  const isKnown = nextSeq !== null && head !== null && deadlineMs !== null;
  if (isKnown && !isEnded && options.nowMs > deadlineMs + END_GRACE_MS)
    findings.add(
      segmentKey(partition.path, nextSeq),
      `cut tail: no sealed end, and the deadline was ${spellTime(deadlineMs)}`,
    );
  const openCalls = records.openCalls(isEnded);

  const reader = new BodyReader(records, findings);
  const known = new Set(segments.map(({ firstSeq }) => firstSeq));
  let bodiesAhead = 0;
  for (const { key, firstSeq } of [...bodies].sort(bySegmentAndVolume)) {
    if (!known.has(firstSeq) && !records.isHole(firstSeq)) {
      if (segments.length > 0 && firstSeq === nextSeq && !isEnded) bodiesAhead++;
      else findings.add(key, "bodies of a segment that is not there");
      continue;
    }
    const object = await objects.get(key);
    if (object === null) reader.markDamaged(key, "can't be read");
    else await reader.read(key, firstSeq, object);
  }
  const { erased, undigested } = reader.finish();
  return {
    partition: partition.path,
    records: records.records,
    segments: segments.length,
    status: isEnded ? "ended" : "open",
    openCalls,
    erasedBodies: erased,
    undigestedBodies: undigested,
    bodiesAhead,
    findings: findings.all,
  };
}

/** One segment after the other, each held to the head that the one before reached. */
async function verifySegments(
  objects: TranscriptObjects,
  { keys, issuer, onRecord }: VerifyOptions,
  partition: Partition,
  segments: readonly ObjectName[],
  records: RecordReader,
  findings: Findings,
): Promise<{ reached: Reached; isEnded: boolean }> {
  let reached: Reached = { nextSeq: 0, head: FIRST_PREV };
  let isEnded = false;
  const inOrder = [...segments].sort(bySegmentAndVolume);
  for (const [index, name] of inOrder.entries()) {
    const { key, firstSeq } = name;
    if (isEnded) findings.add(key, "a segment after the sealed end");
    if (reached.nextSeq !== null && firstSeq !== reached.nextSeq) {
      if (firstSeq < reached.nextSeq) findings.add(key, `begins before seq ${reached.nextSeq}, which comes next`);
      else
        findings.add(
          segmentKey(partition.path, reached.nextSeq),
          `missing: the segment after it begins with seq ${firstSeq}`,
        );
      records.markHole(reached.nextSeq, firstSeq - 1);
      reached = { nextSeq: firstSeq, head: null };
    }
    const lastSeq = (inOrder[index + 1]?.firstSeq ?? Number.POSITIVE_INFINITY) - 1;
    const object = await objects.get(key);
    const read = object === null ? null : await readLines(object);
    if (read === null || !read.ok) {
      findings.add(key, read === null ? "can't be read" : read.error);
      records.markHole(firstSeq, lastSeq);
      reached = { nextSeq: null, head: null };
      continue;
    }
    const segment = readSegment(name, read.value, reached, { keys, issuer, findings });
    if (!segment.sound) records.markHole(firstSeq, lastSeq);
    for (const record of segment.records) {
      records.read(record, firstSeq);
      onRecord?.(partition, record);
    }
    reached = { nextSeq: segment.nextSeq, head: segment.seal?.head ?? null };
    isEnded ||= closes(segment, records, findings);
  }
  return { reached, isEnded };
}

/** Whether a segment is the sealed end. The `ended` record and the final seal go together, or something is wrong. */
function closes(segment: ReturnType<typeof readSegment>, records: RecordReader, findings: Findings): boolean {
  const { seal, sealPlace, sound } = segment;
  if (seal === null || !sound) return seal?.final === true;
  const last = segment.records.at(-1);
  const endsHere = last !== undefined && last === records.ended;
  if (seal.final && !endsHere) findings.add(sealPlace, "the seal is final, and the last record is not the end");
  if (!seal.final && endsHere) findings.add(last.place, "the end, and the seal is not final");
  return seal.final;
}

const bySegmentAndVolume = (a: ObjectName, b: ObjectName): number =>
  a.firstSeq - b.firstSeq || (a.volume ?? 0) - (b.volume ?? 0);

const spellTime = (ms: number): string => new Date(Math.min(ms, 8.64e15)).toISOString();
