import { within } from "../src/within.ts";

/** What takes longer counts as failed, and is tried again: it may not hold up what the alarm has to do in time. */
const R2_TIMEOUT_MS = 30_000;

/** Throws where R2 does not answer. */
export async function answered<T>(key: string, what: "put" | "read", asked: Promise<T>): Promise<T> {
  const answer = await within(
    R2_TIMEOUT_MS,
    asked.then((value) => ({ value })),
  );
  if (answer === undefined) throw new Error(`${key}: the ${what} did not answer`);
  return answer.value;
}

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
  if ((await answered(key, "put", putting)) !== null) return;
  const compare = async (): Promise<boolean> => {
    const there = await bucket.get(key);
    if (there === null) throw new Error(`${key}: refused as present, and absent`);
    return isSame(there);
  };
  if (!(await answered(key, "read", compare()))) throw new Error(`${key}: another object stands there`);
}
