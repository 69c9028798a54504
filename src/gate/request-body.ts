/** A body up to this is on record in its call's own row, durable with the decision; a longer one is recorded as it passes. */
export const FIRST_RUN_BYTES = 1_048_576;
/** How long an agent may take to send the first run. */
const FIRST_RUN_TIMEOUT_MS = 60_000;

export interface RequestBody {
  /** The whole body, or its first run where `rest` follows. */
  readonly first: Uint8Array;
  readonly rest: ReadableStreamBYOBReader | null;
}

const EMPTY: RequestBody = { first: new Uint8Array(0), rest: null };

/** Reads the body's first run. `undefined`: the agent went away or took too long. */
export async function readRequestBody(request: Request): Promise<RequestBody | undefined> {
  if (request.body === null) return EMPTY;
  const reader = request.body.getReader({ mode: "byob" });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    reader.cancel("timeout").catch(() => {});
  }, FIRST_RUN_TIMEOUT_MS);
  try {
    // One more than the run, so that a body of exactly this size is seen to end.
    let buffer = new ArrayBuffer(initialBytes(request.headers));
    let filled = 0;
    for (;;) {
      const view = new Uint8Array(buffer, filled, buffer.byteLength - filled);
      const { done, value } = await reader.readAtLeast(view.byteLength, view);
      // A read that was cancelled may look like one that came to the end.
      if (isLate) return undefined;
      if (value !== undefined) {
        buffer = value.buffer as ArrayBuffer;
        filled += value.byteLength;
      }
      if (done || filled < buffer.byteLength) return { first: new Uint8Array(buffer, 0, filled), rest: null };
      if (filled > FIRST_RUN_BYTES) return { first: new Uint8Array(buffer, 0, filled), rest: reader };
      const larger = new ArrayBuffer(FIRST_RUN_BYTES + 1);
      new Uint8Array(larger).set(new Uint8Array(buffer, 0, filled));
      buffer = larger;
    }
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** The declared length where it is short (one byte more, to see the end), else enough for most. */
function initialBytes(headers: Headers): number {
  const declared = Number(headers.get("content-length") ?? Number.NaN);
  return Number.isSafeInteger(declared) && declared >= 0 ? Math.min(declared, FIRST_RUN_BYTES) + 1 : 16_384;
}

/** The next run of a long body; null at its end. */
export async function readNextRun(reader: ReadableStreamBYOBReader): Promise<Uint8Array | null> {
  const { value } = await reader.readAtLeast(FIRST_RUN_BYTES, new Uint8Array(FIRST_RUN_BYTES));
  return value === undefined || value.byteLength === 0 ? null : value;
}
