import { gunzipSync, gzipSync } from "node:zlib";
import { type BodyPart, writeBodyLine } from "../src/transcript/body-line.ts";
import { sha256Hex } from "../src/transcript/envelope.ts";
import { bodiesKey, segmentKey } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";

/** A run of a body as it lies in a log table. */
export interface StoredRun {
  readonly id: number;
  readonly of: number;
  readonly part: BodyPart;
  readonly index: number;
  readonly salt: Uint8Array | null;
  readonly bytes: Uint8Array;
}

/** A sealed segment, read piece by piece. */
export interface SealedSegment {
  readonly firstSeq: number;
  readonly sealLine: string;
  lines(): string[];
  /** The next run after the row with this id. */
  runAfter(id: number): StoredRun | undefined;
}

/**
 * Bytes of bodies in one bodies object, before the last run (of at most 1.9 MB). Their lines are at most four thirds of
 * that in characters, of two bytes each where one is not Latin-1; lines, their join, its UTF-8 and the gzip together
 * stay below 40 MB of the isolate's 128.
 */
const VOLUME_BYTES = 2_097_152;
/** A put that takes longer counts as failed, and is tried again: it may not hold up what the alarm has to do in time. */
const PUT_TIMEOUT_MS = 30_000;

/**
 * Puts a sealed segment into the bucket. Runs again from the start after any failure: every key, and every byte before
 * compression, is decided by the rows, so a second run writes the same or finds it there.
 */
export async function storeSegment(bucket: R2Bucket, partition: string, segment: SealedSegment): Promise<void> {
  // Bodies first: whoever sees an envelope in R2 finds its bodies there.
  await storeBodies(bucket, partition, segment);
  // Dying here leaves bodies that no envelope in R2 speaks of yet; the next run finds them equal.
  const text = [...segment.lines(), segment.sealLine, ""].join("\n");
  await putOnce(bucket, segmentKey(partition, segment.firstSeq), text);
}

async function storeBodies(bucket: R2Bucket, partition: string, segment: SealedSegment): Promise<void> {
  let after = 0;
  for (let volume = 0; ; volume++) {
    const lines: string[] = [];
    let bytes = 0;
    while (bytes < VOLUME_BYTES) {
      const run = segment.runAfter(after);
      if (run === undefined) break;
      after = run.id;
      bytes += run.bytes.length;
      const salt = run.salt === null ? {} : { salt: hex(run.salt) };
      lines.push(writeBodyLine({ seq: run.of, part: run.part, index: run.index, ...salt }, run.bytes));
    }
    if (lines.length === 0) return;
    await putOnce(bucket, bodiesKey(partition, segment.firstSeq, volume), `${lines.join("\n")}\n`);
  }
}

/**
 * Writes an object once. Where one stands already it must hold the same bytes: an earlier run of ours that died after
 * the put. Anything else is somebody's doing, and is never overwritten.
 */
async function putOnce(bucket: R2Bucket, key: string, text: string): Promise<void> {
  const plain = new TextEncoder().encode(text);
  const putting = bucket.put(key, gzipSync(plain), {
    onlyIf: { etagDoesNotMatch: "*" },
    httpMetadata: { contentType: "application/gzip" },
  });
  const put = await within(PUT_TIMEOUT_MS, putting);
  if (put === undefined) throw new Error(`${key}: the put did not answer`);
  if (put !== null) return;
  const there = await bucket.get(key);
  if (there === null) throw new Error(`${key}: refused as present, and absent`);
  const stored = gunzipSync(new Uint8Array(await there.arrayBuffer()), { maxOutputLength: plain.length + 1 });
  if (sha256Hex(stored) !== sha256Hex(plain)) throw new Error(`${key}: another object stands there`);
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
