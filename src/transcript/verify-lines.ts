import { err, ok, type Result } from "../result.ts";

/**
 * Of one object, decompressed. A volume of bodies holds at most 4 MiB and one run (1.9 MB) more, and JSON spells a
 * byte with at most six: 37 MB. A segment's envelopes are far below.
 */
export const OBJECT_MAX_BYTES = 67_108_864;
const NEWLINE = 0x0a;

export interface Lines {
  /** The exact bytes of each line, without its newline. */
  readonly lines: readonly Uint8Array[];
  /** False: bytes follow the last newline; they are the last of `lines`. */
  readonly terminated: boolean;
}

/** What is verified is what an object holds decompressed: exactly one gzip member (RFC 1952), nothing behind it. */
export async function readLines(object: Uint8Array): Promise<Result<Lines, string>> {
  const plain = await gunzip(object);
  if (!plain.ok) return plain;
  const lines: Uint8Array[] = [];
  let start = 0;
  for (let end = plain.value.indexOf(NEWLINE); end !== -1; end = plain.value.indexOf(NEWLINE, start)) {
    lines.push(plain.value.subarray(start, end));
    start = end + 1;
  }
  const terminated = start === plain.value.length;
  if (!terminated) lines.push(plain.value.subarray(start));
  return ok({ lines, terminated });
}

async function gunzip(object: Uint8Array): Promise<Result<Uint8Array, string>> {
  const source = new ReadableStream<BufferSource>({
    start(controller) {
      controller.enqueue(object as Uint8Array<ArrayBuffer>);
      controller.close();
    },
  });
  const reader = source.pipeThrough(new DecompressionStream("gzip")).getReader();
  const chunks: Uint8Array[] = [];
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
      chunks.push(value);
    }
  } catch {
    return err("is not one whole gzip member");
  }
  const plain = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    plain.set(chunk, at);
    at += chunk.length;
  }
  return ok(plain);
}
