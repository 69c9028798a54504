import { gunzipSync } from "node:zlib";
import type { Deployment } from "../deployment.ts";
import { instanceOf } from "../objects.ts";
import { type InstancePartition, instancePartition, KEY_ID } from "../transcript/layout.ts";

export const LINES_AT_ONCE = 500;
/** Far above what a segment holds; a bound against a foreign object. */
const SEGMENT_MAX_BYTES = 67_108_864;

/** An instance's transcript as exact lines, streamed: segments in R2 first, then the tail. Null: there is none. */
export async function readTranscript(
  deployment: Deployment,
  of: InstancePartition,
): Promise<ReadableStream<Uint8Array> | null> {
  if (![of.human, of.task, of.instance].every((id) => KEY_ID.test(id))) return null;
  const bucket = deployment.env.TRANSCRIPTS;
  const prefix = `transcripts/${instancePartition(of)}/`;
  const lines = readLines(deployment, of.instance, bucket, prefix);
  const first = await lines.next();
  return first.done ? null : streamOf(lines, first);
}

export function streamOf(lines: AsyncIterator<string>, first?: IteratorResult<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let next = first;
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = next ?? (await lines.next());
      next = undefined;
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    // Who reads is gone: nothing more is fetched for them.
    async cancel() {
      await lines.return?.();
    },
  });
}

/** Text of whole lines, piece by piece. */
async function* readLines(
  deployment: Deployment,
  instance: string,
  bucket: R2Bucket,
  prefix: string,
  atSeq = 0,
): AsyncGenerator<string> {
  let fromSeq = 0;
  for await (const key of atSeq === 0 ? listKeys(bucket, prefix) : await keysFrom(bucket, prefix, atSeq)) {
    const segment = await readSegment(bucket, key);
    if (segment === null) continue;
    yield segment;
    fromSeq = nextSeq(segment, fromSeq);
  }
  yield* readTail(bucket, prefix, fromSeq, async (seq) => {
    const tail = await instanceOf(deployment, instance).read(seq, LINES_AT_ONCE);
    return tail === null || `transcripts/${tail.partition}/` !== prefix ? null : tail.lines;
  });
}

/** Of the segment that holds this record, if it is in R2, and of those behind it. */
async function keysFrom(bucket: R2Bucket, prefix: string, seq: number): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of listKeys(bucket, prefix)) {
    // Keys come in order, and a segment's name says its first record.
    if (key <= `${prefix}${tenDigits(seq)}.jsonl.gz`) keys.length = 0;
    keys.push(key);
  }
  return keys;
}

const tenDigits = (seq: number): string => String(seq).padStart(10, "0");

/** Records from this one on, one by one. Those before it in its segment may come as well. */
export async function* readLinesFrom(
  deployment: Deployment,
  of: InstancePartition,
  seq: number,
): AsyncGenerator<string> {
  const prefix = `transcripts/${instancePartition(of)}/`;
  for await (const text of readLines(deployment, of.instance, deployment.env.TRANSCRIPTS, prefix, seq))
    for (const line of text.split("\n")) if (line !== "") yield line;
}

export async function* listKeys(bucket: R2Bucket, prefix: string): AsyncGenerator<string> {
  let cursor: string | undefined;
  do {
    const listed: R2Objects = await bucket.list({ prefix, ...(cursor === undefined ? {} : { cursor }) });
    for (const { key } of listed.objects) yield key;
    cursor = listed.truncated ? listed.cursor : undefined;
  } while (cursor !== undefined);
}

/**
 * What an object's log holds from `fromSeq` on, and R2 does not. `read` answers null where there is no such log.
 *
 * INVARIANT: no line is missing or comes twice, seals included, whatever is sealed and stored meanwhile. Within a segment
 * the log is asked from the last line that was told: where it still has that, it goes on from there, and has the seal. Where
 * it hasn't, the segment is in R2 under its first `seq`, because rows go only after the put.
 *
 * @param fromSeq the first of a segment
 */
export async function* readTail(
  bucket: R2Bucket,
  prefix: string,
  fromSeq: number,
  read: (fromSeq: number) => Promise<readonly string[] | null>,
): AsyncGenerator<string> {
  let firstOfSegment = fromSeq;
  for (;;) {
    const isWithin = fromSeq > firstOfSegment;
    const asked = isWithin ? fromSeq - 1 : fromSeq;
    const tail = await read(asked);
    if (tail === null) return;
    const goesOn = tail.length > 0 && seqOf(tail[0]!) === asked;
    const stored = goesOn ? null : await readSegment(bucket, `${prefix}${tenDigits(firstOfSegment)}.jsonl.gz`);
    const lines = stored === null ? tail.slice(goesOn && isWithin ? 1 : 0) : linesFrom(stored, fromSeq);
    if (lines.length === 0) return;
    // What stands before is in neither place: somebody has deleted it. The gap shows, and what follows is told.
    if (!goesOn && stored === null) firstOfSegment = seqOf(lines[0]!)!;
    const text = `${lines.join("\n")}\n`;
    yield text;
    fromSeq = nextSeq(text, fromSeq);
    const seal = lines.findLastIndex((line) => seqOf(line) === undefined);
    const afterSeal = lines.slice(seal + 1);
    if (seal !== -1) firstOfSegment = afterSeal.length === 0 ? fromSeq : seqOf(afterSeal[0]!)!;
  }
}

/** Undefined: a seal. */
const seqOf = (line: string): number | undefined => (JSON.parse(line) as { seq?: number }).seq;

/** Of a segment's lines the records from `fromSeq` on, and the seal. */
const linesFrom = (segment: string, fromSeq: number): string[] =>
  segment.split("\n").filter((line) => line !== "" && (seqOf(line) ?? fromSeq) >= fromSeq);

export async function readSegment(bucket: R2Bucket, key: string): Promise<string | null> {
  const object = await bucket.get(key);
  if (object === null) return null;
  const bytes = gunzipSync(new Uint8Array(await object.arrayBuffer()), { maxOutputLength: SEGMENT_MAX_BYTES });
  return new TextDecoder().decode(bytes);
}

/** One past the last record among these lines. */
export function nextSeq(text: string, before: number): number {
  let next = before;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const { seq } = JSON.parse(line) as { seq?: number };
    if (typeof seq === "number") next = seq + 1;
  }
  return next;
}
