import { gunzipSync, gzipSync } from "node:zlib";
import { within } from "../src/within.ts";

/** Far above what a volume holds; a bound against a foreign object. */
const VOLUME_MAX_BYTES = 67_108_864;
const TIMEOUT_MS = 30_000;

/** Never answers later than that: an erasure stands still then, and is carried on with the next alarm. */
async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  const answer = await within(
    TIMEOUT_MS,
    work.then((value) => ({ value })),
  );
  if (answer === undefined) throw new Error(`${what}: the bucket did not answer`);
  return answer.value;
}

/** The certificate, once. `isOurs` tells whether what stands there already is it: an earlier run that died after the put. */
export async function putCertificate(
  bucket: R2Bucket,
  key: string,
  line: string,
  isOurs: (text: string) => boolean,
): Promise<void> {
  const onlyIf = { etagDoesNotMatch: "*" };
  const httpMetadata = { contentType: "application/json" };
  if ((await inTime(key, bucket.put(key, `${line}\n`, { onlyIf, httpMetadata }))) !== null) return;
  const there = await inTime(key, bucket.get(key));
  if (there === null || !isOurs(await there.text())) throw new Error(`${key}: another object stands there`);
}

export interface Listed {
  readonly key: string;
  readonly bytes: number;
  readonly uploadedMs: number;
}

/** By key, not by the bucket's cursor: it holds over deletions, and over a restart. */
export async function listAfter(
  bucket: R2Bucket,
  prefix: string,
  after: string,
  limit: number,
): Promise<readonly Listed[]> {
  const listed = await inTime(prefix, bucket.list({ prefix, limit, ...(after === "" ? {} : { startAfter: after }) }));
  return listed.objects.map(({ key, size, uploaded }) => ({ key, bytes: size, uploadedMs: uploaded.getTime() }));
}

/** What became of a deletion. `refused`: they are there, and stay. Throws where the bucket is out of reach. */
export async function deleteObjects(bucket: R2Bucket, keys: readonly string[]): Promise<"gone" | { refused: string }> {
  try {
    await inTime("delete", bucket.delete([...keys]));
    return "gone";
  } catch (error) {
    const refused = error instanceof Error ? error.message.slice(0, 200) : "unknown";
    // One that is gone all the same was deleted by an earlier run, or by this one before its answer was lost.
    if (keys.length === 1 && (await inTime("head", bucket.head(keys[0]!))) === null) return "gone";
    return { refused };
  }
}

/** How many lines of a volume are meant, and whether others are there. Null: it is gone. Throws for what is no volume. */
export async function countLines(
  bucket: R2Bucket,
  key: string,
  isMeant: (seq: number) => boolean,
): Promise<{ readonly meant: number; readonly others: number } | null> {
  const there = await inTime(key, bucket.get(key));
  if (there === null) return null;
  const lines = linesOf(await there.arrayBuffer());
  const meant = lines.filter((line) => isMeant(seqOf(line))).length;
  return { meant, others: lines.length - meant };
}

/**
 * Writes a volume anew, as one gzip member, without the lines that are meant. To do it twice is nothing.
 * @param mayGo asked when it has been read, and nothing is waited for any more; false or throwing: it stays as it is
 * @returns false: it stayed because of that
 */
export async function keepOthers(
  bucket: R2Bucket,
  key: string,
  isMeant: (seq: number) => boolean,
  mayGo: () => boolean,
): Promise<boolean> {
  const there = await inTime(key, bucket.get(key));
  if (there === null) return true;
  const lines = linesOf(await there.arrayBuffer());
  const others = lines.filter((line) => !isMeant(seqOf(line)));
  if (others.length === lines.length) return true;
  if (!mayGo()) return false;
  const put = bucket.put(key, gzipSync(new TextEncoder().encode(`${others.join("\n")}\n`)), {
    onlyIf: { etagMatches: there.etag },
    httpMetadata: { contentType: "application/gzip" },
  });
  if ((await inTime(key, put)) === null) throw new Error(`${key}: it changed meanwhile`);
  return true;
}

function linesOf(zipped: ArrayBuffer): string[] {
  const plain = gunzipSync(new Uint8Array(zipped), { maxOutputLength: VOLUME_MAX_BYTES });
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
    .decode(plain)
    .split("\n")
    .filter((line) => line !== "");
}

function seqOf(line: string): number {
  const { seq } = JSON.parse(line) as { seq?: unknown };
  if (typeof seq !== "number") throw new Error("a line without seq");
  return seq;
}
