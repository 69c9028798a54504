import { FIRST_PREV } from "./envelope.ts";
import { segmentKey } from "./layout.ts";
import { type AbsenceRules, readCertificates } from "./verify-absence.ts";
import { type BodyCounts, BodyReader } from "./verify-bodies.ts";
import { Families } from "./verify-families.ts";
import { type Finding, Findings, MAX_FINDINGS } from "./verify-findings.ts";
import { type CopyScope, IndexReader } from "./verify-index.ts";
import type { SealKeys } from "./verify-keys.ts";
import { type Partition, parseObjectKey, type RawName, type SegmentName, type VolumeName } from "./verify-layout.ts";
import { readLines } from "./verify-lines.ts";
import type { TranscriptObjects } from "./verify-objects.ts";
import { RawObjects } from "./verify-raw.ts";
import { RecordReader } from "./verify-records.ts";
import type { TranscriptReport, VerifyReport } from "./verify-report.ts";
import { type Reached, type ReadRecord, readSegment } from "./verify-segment.ts";

/** After the deadline that a transcript states, how long its sealed end may take to reach the bucket. */
export const END_GRACE_MS = 600_000;

export interface VerifyOptions {
  readonly keys: SealKeys;
  /** Whose seals these must be; null: of anyone who holds one of the keys. */
  readonly issuer: string | null;
  readonly nowMs: number;
  /** False: only envelopes are verified, and nothing under `bodies/` is looked at. */
  readonly bodies?: boolean;
  /** How long the bucket's lifecycle keeps bodies. Without it: for good, so an absent body is a loss. */
  readonly bodiesKeptMs?: number;
  /** What the copy is of, so what must be in it if the index of segments names it. Nothing: that is not known. */
  readonly scopes?: readonly CopyScope[];
  /** Hears each record that nothing contradicts, of one transcript after the other and in order. */
  readonly onRecord?: (partition: Partition, record: ReadRecord) => void;
}

/** The objects of one transcript. */
interface TranscriptNames {
  readonly partition: Partition;
  readonly segments: SegmentName[];
  readonly volumes: VolumeName[];
  readonly raw: RawName[];
}

/**
 * Re-derives everything that transcripts claim from the bytes of the bucket or a copy of it: frames, chain, seals, what
 * each record allows after it, every body, and the certificates of those that were erased. It never stops at the first
 * finding. It throws where the bytes can't be had.
 *
 * What it can't see without the index of segments, and without knowing what the copy is of (`scopes`): an open transcript
 * whose last segments are gone looks like one that is not as far yet, and one that is gone as a whole like one that never
 * was. The first ends at the deadline that record 0 states: past it (and `END_GRACE_MS`) there must be a sealed end. Until
 * then `status` is "open", which promises nothing about the tail.
 */
export async function verifyTranscripts(objects: TranscriptObjects, options: VerifyOptions): Promise<VerifyReport> {
  const stray = new Findings();
  const partitions = await listTranscripts(objects, options, stray);
  const certificates = await readCertificates(objects, options, stray);
  const { bodies = true, nowMs, bodiesKeptMs } = options;
  const expiredBeforeMs = bodiesKeptMs === undefined ? null : nowMs - bodiesKeptMs;
  if (partitions.size === 0) stray.add("transcripts/", "no transcripts");
  const index = new IndexReader(options.scopes ?? []);
  const families = new Families();
  const transcripts: TranscriptReport[] = [];
  for (const path of [...partitions.keys()].sort())
    transcripts.push(
      await verifyTranscript(objects, options, { index, families }, partitions.get(path)!, {
        certificates,
        expiredBeforeMs,
      }),
    );
  const named = index.finish();
  const related = families.finish();
  for (const { place, problem } of named.stray) stray.add(place, problem);
  const held = transcripts.map((transcript) => {
    const { partition } = transcript;
    const isNew = ({ place }: Finding) => !transcript.findings.some((finding) => finding.place === place);
    const ofIndex = (named.of.get(partition) ?? []).filter(isNew).slice(0, MAX_FINDINGS);
    const findings = [...transcript.findings, ...(related.findings.get(partition) ?? []), ...ofIndex];
    return { ...transcript, parent: related.parents.get(partition) ?? "none", findings };
  });
  const ok = stray.all.length === 0 && held.every(({ findings }) => findings.length === 0);
  const { unnamed: unnamedSegments } = named;
  return { transcripts: held, findings: stray.all, unnamedSegments, bodiesVerified: bodies, ok };
}

async function listTranscripts(
  objects: TranscriptObjects,
  { bodies = true }: VerifyOptions,
  stray: Findings,
): Promise<Map<string, TranscriptNames>> {
  const partitions = new Map<string, TranscriptNames>();
  for (const prefix of ["transcripts/", ...(bodies ? ["bodies/" as const] : [])] as const)
    for await (const key of objects.keys(prefix)) {
      const name = parseObjectKey(key);
      if (name === undefined) {
        stray.add(key, "not the name of a segment or of its bodies");
        continue;
      }
      const { partition } = name;
      const names = partitions.get(partition.path) ?? { partition, segments: [], volumes: [], raw: [] };
      partitions.set(partition.path, names);
      if (name.kind === "segment") names.segments.push(name);
      else if (name.kind === "volume") names.volumes.push(name);
      else names.raw.push(name);
    }
  return partitions;
}

async function verifyTranscript(
  objects: TranscriptObjects,
  options: VerifyOptions,
  { index, families }: { readonly index: IndexReader; readonly families: Families },
  { partition, segments, volumes, raw }: TranscriptNames,
  absence: AbsenceRules,
): Promise<TranscriptReport> {
  const findings = new Findings();
  const records = new RecordReader(partition, findings);
  const { reached, isEnded } = await verifySegments(objects, options, index, partition, segments, records, findings);
  const { deadlineMs, clockBack } = records;
  const { nextSeq, head } = reached;
  // Where the last segment is not sound, that is the finding, and whether it was the end can't be told.
  const isKnown = nextSeq !== null && head !== null && deadlineMs !== null;
  if (isKnown && !isEnded && options.nowMs > deadlineMs + END_GRACE_MS)
    findings.add(
      segmentKey(partition.path, nextSeq),
      `cut tail: no sealed end, and the deadline was ${spellTime(deadlineMs)}`,
    );
  const { openCalls, member } = records.finish(isEnded);
  const { human, task } = partition.ids;
  if (member !== null) families.add(`${human} ${task}`, member);

  let bodiesAhead = 0;
  let counts: BodyCounts = { erased: [], expired: [], absent: [], undigested: [], rawAhead: 0 };
  if (options.bodies !== false) {
    const reader = new BodyReader(objects, partition, records, new RawObjects(raw), absence, findings);
    const known = new Set(segments.map(({ firstSeq }) => firstSeq));
    for (const name of volumes.sort((a, b) => a.firstSeq - b.firstSeq || a.volume - b.volume)) {
      const { key, firstSeq } = name;
      if (known.has(firstSeq) || records.isHole(firstSeq)) await reader.read(name);
      else if (segments.length > 0 && firstSeq === nextSeq && !isEnded) bodiesAhead++;
      else findings.add(key, "bodies of a segment that is not there");
    }
    counts = reader.finish({ isEnded, nextSeq });
  }
  return {
    partition: partition.path,
    records: records.records,
    segments: segments.length,
    status: isEnded ? "ended" : "open",
    openCalls,
    erasedBodies: counts.erased,
    expiredBodies: counts.expired,
    absentBodies: counts.absent,
    undigestedBodies: counts.undigested,
    bodiesAhead: bodiesAhead + counts.rawAhead,
    uncheckedCalls: records.uncheckedCalls,
    parent: "none",
    clockBack: clockBack.records === 0 ? null : clockBack,
    findings: findings.all,
  };
}

/** One segment after the other, each held to the head that the one before reached. */
async function verifySegments(
  objects: TranscriptObjects,
  { keys, issuer, onRecord }: VerifyOptions,
  index: IndexReader,
  partition: Partition,
  segments: readonly SegmentName[],
  records: RecordReader,
  findings: Findings,
): Promise<{ reached: Reached; isEnded: boolean }> {
  let reached: Reached = { nextSeq: 0, head: FIRST_PREV };
  let isEnded = false;
  const inOrder = [...segments].sort((a, b) => a.firstSeq - b.firstSeq);
  for (const [at, name] of inOrder.entries()) {
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
    const lastSeq = (inOrder[at + 1]?.firstSeq ?? Number.POSITIVE_INFINITY) - 1;
    const object = await objects.open(key);
    const read = object.ok ? await readLines(object.value) : object;
    if (!read.ok) {
      findings.add(key, read.error);
      index.readSegment(partition, key, null);
      records.markHole(firstSeq, lastSeq);
      reached = { nextSeq: null, head: null };
      continue;
    }
    const segment = readSegment(name, read.value, reached, { keys, issuer, findings });
    if (!segment.sound) records.markHole(firstSeq, lastSeq);
    index.readSegment(partition, key, segment.seal);
    for (const record of segment.records) {
      records.read(record, firstSeq);
      index.readRecord(partition, record);
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

const spellTime = (ms: number): string => new Date(Math.min(ms, 8.64e15)).toISOString();
