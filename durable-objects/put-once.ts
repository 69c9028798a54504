import { within } from "../src/within.ts";

/** A put that takes longer counts as failed, and is tried again: it may not hold up what the alarm has to do in time. */
const PUT_TIMEOUT_MS = 30_000;

export interface Content {
  readonly contentType: string;
  /** Anew for each try. */
  readonly body: () => ArrayBufferView | ReadableStream;
  /** Whether what stands there already are the same bytes, before any compression. */
  readonly isSame: (there: R2ObjectBody) => Promise<boolean>;
}

/**
 * Writes an object once. Where one stands already it must hold the same bytes: an earlier run of ours that died after
 * the put. Anything else is somebody's doing, and is never overwritten.
 */
export async function putOnce(bucket: R2Bucket, key: string, { contentType, body, isSame }: Content): Promise<void> {
  const putting = bucket.put(key, body(), {
    onlyIf: { etagDoesNotMatch: "*" },
    httpMetadata: { contentType },
  });
  const put = await within(PUT_TIMEOUT_MS, putting);
  if (put === undefined) throw new Error(`${key}: the put did not answer`);
  if (put !== null) return;
  const there = await bucket.get(key);
  if (there === null) throw new Error(`${key}: refused as present, and absent`);
  if (!(await isSame(there))) throw new Error(`${key}: another object stands there`);
}
