import { err, ok, type Result } from "../result.ts";
import { FIRST_RUN_BYTES } from "./first-run.ts";

/** How long an agent may take to send the first run. */
const FIRST_RUN_TIMEOUT_MS = 60_000;
/** What a body is given before a byte of it arrived, whatever length it declares. */
const FIRST_BUFFER_BYTES = 16_384;
/**
 * Of all first runs that one isolate reads at a time: 31 of full length, and a quarter of its 128 MiB. They are held
 * before rate and concurrency are asked, so an agent may have as many as it opens connections.
 */
export const MAX_BUFFERED_BYTES = 33_554_432;

export interface RequestBody {
  /** The whole body, or its first run where `rest` follows. */
  readonly first: Uint8Array;
  readonly rest: ReadableStreamBYOBReader | null;
}

/** Bytes of the buffers that are being filled in this isolate. */
let bufferedBytes = 0;

/** Reads the body's first run, into a buffer that grows with what arrived. An error: it did not come, or there is no room. */
export async function readRequestBody(
  body: ReadableStream,
  declaredBytes: number | null,
): Promise<Result<RequestBody, string>> {
  let capacity = firstCapacity(declaredBytes);
  if (!takeRoom(capacity)) return err(NO_ROOM);
  const reader = body.getReader({ mode: "byob" });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    reader.cancel("timeout").catch(() => {});
  }, FIRST_RUN_TIMEOUT_MS);
  try {
    let buffer = new ArrayBuffer(capacity);
    let filled = 0;
    for (;;) {
      const view = new Uint8Array(buffer, filled, capacity - filled);
      const { done, value } = await reader.readAtLeast(view.byteLength, view);
      // A read that was cancelled may look like one that came to the end.
      if (isLate) return err(NOT_ARRIVED);
      if (value !== undefined) {
        buffer = value.buffer as ArrayBuffer;
        filled += value.byteLength;
      }
      if (done || filled < capacity) return ok({ first: new Uint8Array(buffer, 0, filled), rest: null });
      if (filled > FIRST_RUN_BYTES) return ok({ first: new Uint8Array(buffer, 0, filled), rest: reader });
      const larger = nextCapacity(capacity, declaredBytes);
      if (!takeRoom(larger - capacity)) {
        reader.cancel("no room").catch(() => {});
        return err(NO_ROOM);
      }
      capacity = larger;
      const grown = new ArrayBuffer(capacity);
      new Uint8Array(grown).set(new Uint8Array(buffer, 0, filled));
      buffer = grown;
    }
  } catch {
    return err(NOT_ARRIVED);
  } finally {
    clearTimeout(timer);
    giveRoom(capacity);
  }
}

const NOT_ARRIVED = "the request's body did not arrive";
const NO_ROOM = "too many requests' bodies are being read";

/** Room in this isolate for what is read whole. Who got it gives it back. */
export function takeRoom(bytes: number): boolean {
  if (bufferedBytes + bytes > MAX_BUFFERED_BYTES) return false;
  bufferedBytes += bytes;
  return true;
}

export function giveRoom(bytes: number): void {
  bufferedBytes -= bytes;
}

/** One byte more than declared, or than the run: so a body of exactly that size is seen to end. */
const firstCapacity = (declaredBytes: number | null): number =>
  Math.min(declaredBytes === null ? FIRST_BUFFER_BYTES : declaredBytes + 1, FIRST_BUFFER_BYTES);

/** At most twice what has arrived, and no more than is to come. */
function nextCapacity(filled: number, declaredBytes: number | null): number {
  const doubled = filled * 2 < FIRST_RUN_BYTES ? filled * 2 : FIRST_RUN_BYTES + 1;
  // A declared length that was passed already was none.
  return declaredBytes === null || declaredBytes < filled ? doubled : Math.min(doubled, declaredBytes + 1);
}

/** The next run of a long body; null at its end. */
export async function readNextRun(reader: ReadableStreamBYOBReader): Promise<Uint8Array | null> {
  const { value } = await reader.readAtLeast(FIRST_RUN_BYTES, new Uint8Array(FIRST_RUN_BYTES));
  return value === undefined || value.byteLength === 0 ? null : value;
}
