import { gunzipSync, gzipSync } from "node:zlib";
import { type BodyPart, writeBodyLine, writeRawLine } from "../src/transcript/body-line.ts";
import { sha256Hex } from "../src/transcript/envelope.ts";
import { bodiesKey, type RawPart, segmentKey } from "../src/transcript/layout.ts";
import { putOnce } from "./put-once.ts";

/** A run of a body as it lies in a log table. */
export interface StoredRun {
  readonly id: number;
  readonly of: number;
  readonly part: BodyPart;
  readonly index: number;
  readonly salt: Uint8Array | null;
  readonly bytes: Uint8Array;
  /** What follows of the body lies in raw objects. */
  readonly isRaw: boolean;
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
/**
 * Puts a sealed segment into the bucket. Runs again from the start after any failure: every key, and every byte before
 * compression, is decided by the rows, so a second run writes the same or finds it there. Returns how many objects hold
 * its bodies.
 */
export async function storeSegment(bucket: R2Bucket, partition: string, segment: SealedSegment): Promise<number> {
  // Bodies first: whoever sees an envelope in R2 finds its bodies there.
  const bodies = await storeBodies(bucket, partition, segment);
  // Dying here leaves bodies that no envelope in R2 speaks of yet; the next run finds them equal.
  const text = [...segment.lines(), segment.sealLine, ""].join("\n");
  await putLines(bucket, segmentKey(partition, segment.firstSeq), text);
  return bodies;
}

async function storeBodies(bucket: R2Bucket, partition: string, segment: SealedSegment): Promise<number> {
  let after = 0;
  for (let volume = 0; ; volume++) {
    const lines: string[] = [];
    let bytes = 0;
    while (bytes < VOLUME_BYTES) {
      const run = segment.runAfter(after);
      if (run === undefined) break;
      after = run.id;
      bytes += run.bytes.length;
      lines.push(lineOf(run));
    }
    if (lines.length === 0) return volume;
    await putLines(bucket, bodiesKey(partition, segment.firstSeq, volume), `${lines.join("\n")}\n`);
  }
}

function lineOf({ of, part, index, salt, bytes, isRaw }: StoredRun): string {
  const salted = salt === null ? {} : { salt: hex(salt) };
  if (isRaw) return writeRawLine({ seq: of, part: part as RawPart, index, ...salted });
  return writeBodyLine({ seq: of, part, index, ...salted }, bytes);
}

async function putLines(bucket: R2Bucket, key: string, text: string): Promise<void> {
  const plain = new TextEncoder().encode(text);
  await putOnce(bucket, key, {
    contentType: "application/gzip",
    body: () => gzipSync(plain),
    isSame: async (there) => {
      // Room to spare: workerd's zlib doubles its buffer, and fails where that would exceed the bound, though the bytes would not.
      const options = { maxOutputLength: 2 * plain.length + 65_536 };
      return sha256Hex(gunzipSync(new Uint8Array(await there.arrayBuffer()), options)) === sha256Hex(plain);
    },
  });
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
