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
  });
}

async function* readLines(
  deployment: Deployment,
  instance: string,
  bucket: R2Bucket,
  prefix: string,
): AsyncGenerator<string> {
  let fromSeq = 0;
  for await (const key of listKeys(bucket, prefix)) {
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

export async function* listKeys(bucket: R2Bucket, prefix: string): AsyncGenerator<string> {
  let cursor: string | undefined;
  do {
    const listed: R2Objects = await bucket.list({ prefix, ...(cursor === undefined ? {} : { cursor }) });
    for (const { key } of listed.objects) yield key;
    cursor = listed.truncated ? listed.cursor : undefined;
  } while (cursor !== undefined);
}

/** What an object's log holds from `fromSeq` on, and R2 does not. `read` answers null where there is no such log. */
export async function* readTail(
  bucket: R2Bucket,
  prefix: string,
  fromSeq: number,
  read: (fromSeq: number) => Promise<readonly string[] | null>,
): AsyncGenerator<string> {
  // A segment that reaches R2 between the list and this is no longer in the tail: then its first line is missing here, and it is read by name.
  for (;;) {
    const tail = await read(fromSeq);
    if (tail === null) return;
    const first = tail.map((line) => JSON.parse(line) as { seq?: number }).find(({ seq }) => seq !== undefined)?.seq;
    const missed = await readSegment(bucket, `${prefix}${String(fromSeq).padStart(10, "0")}.jsonl.gz`);
    if (missed !== null && first !== fromSeq) {
      yield missed;
      fromSeq = nextSeq(missed, fromSeq);
      continue;
    }
    if (tail.length === 0) return;
    const text = `${tail.join("\n")}\n`;
    yield text;
    const reached = nextSeq(text, fromSeq);
    if (reached === fromSeq) return;
    fromSeq = reached;
  }
}

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
