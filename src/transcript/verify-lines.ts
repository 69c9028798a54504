import { err, ok, type Result } from "../result.ts";

/**
 * Of one object, decompressed. A volume of bodies holds at most 4 MiB and one run (1.9 MB) more, and JSON spells a
 * byte with at most six: 37 MB. A segment's envelopes are far below.
 */
export const OBJECT_MAX_BYTES = 67_108_864;
/**
 * Of one line. A run of 1.9 MB is spelled with at most 3.6 MB, and a record is a value of SQLite's, which holds 2 MB. JSON of empty
 * containers takes some thirty times its length once it is read: of one line, not of a whole object.
 */
export const LINE_MAX_BYTES = 4_194_304;
/** The shortest line that is written, with its newline: an empty run. A view of a line takes more than that. */
const LINE_LEAST_BYTES = '{"v":1,"seq":0,"part":"answer","index":1,"text":""}\n'.length;
/** Of lines that are too short, so many are told one by one. */
const SHORT_LINES_MAX = 1_000;
const NEWLINE = 0x0a;

export interface Lines {
  /** The exact bytes of each line, without its newline. */
  readonly lines: readonly Uint8Array[];
  /** False: bytes follow the last newline; they are the last of `lines`. */
  readonly terminated: boolean;
}

/**
 * What is verified is what an object holds decompressed: exactly one gzip member (RFC 1952), nothing behind it, and no
 * optional fields in its header, which would hold bytes of their own. Its time, its level and its system are not looked
 * at: they say nothing of a record, and no reader of the content sees them. Nor is how it is compressed.
 */
export async function readLines(object: AsyncIterable<Uint8Array>): Promise<Result<Lines, string>> {
  const plain = await gunzip(object);
  if (!plain.ok) return plain;
  const { value } = plain;
  const terminated = value.length === 0 || value.at(-1) === NEWLINE;
  const lines: Uint8Array[] = [];
  const most = SHORT_LINES_MAX + Math.floor(value.length / LINE_LEAST_BYTES);
  for (let start = 0; start < value.length; ) {
    const newline = value.indexOf(NEWLINE, start);
    const end = newline === -1 ? value.length : newline;
    if (end - start > LINE_MAX_BYTES) return err(`a line of more than ${LINE_MAX_BYTES} bytes`);
    if (lines.length === most) return err(`more lines than were ever written of ${value.length} bytes`);
    lines.push(value.subarray(start, end));
    start = end + 1;
  }
  return ok({ lines, terminated });
}

const FLAGS_AT = 3;

async function gunzip(object: AsyncIterable<Uint8Array>): Promise<Result<Uint8Array, string>> {
  const chunks = object[Symbol.asyncIterator]();
  let at = 0;
  let flags = 0;
  let broken: unknown = null;
  const source = new ReadableStream<BufferSource>({
    async pull(controller) {
      try {
        const { done, value } = await chunks.next();
        if (done === true) return controller.close();
        flags |= at <= FLAGS_AT ? (value[FLAGS_AT - at] ?? 0) : 0;
        at += value.length;
        controller.enqueue(value as Uint8Array<ArrayBuffer>);
      } catch (cause) {
        broken = cause;
        controller.error(cause);
      }
    },
    cancel: async () => void (await chunks.return?.()),
  });
  const reader = source.pipeThrough(new DecompressionStream("gzip")).getReader();
  const parts: Uint8Array[] = [];
  let bytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      if (bytes > OBJECT_MAX_BYTES) {
        await reader.cancel().catch(() => {});
        return err(`expands to more than ${OBJECT_MAX_BYTES} bytes`);
      }
      parts.push(value);
    }
  } catch {
    if (broken !== null) throw broken;
    return err("is not one whole gzip member");
  }
  if (flags !== 0) return err("a gzip header with more in it than was written");
  return ok(joinBytes(parts, bytes));
}

export function joinBytes(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const joined = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
