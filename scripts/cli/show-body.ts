// A body for a person: text as text, JSON laid out, anything else by its size and digest.

import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { brotliDecompress, gunzip, inflate } from "node:zlib";
import type { Reference } from "./story.ts";
import { size } from "./story-lines.ts";

/** So much of a body is shown; all of it is one command away. */
const SHOWN_MAX_BYTES = 262_144;

const DECODERS: Readonly<Record<string, (bytes: Uint8Array, options: { maxOutputLength: number }) => Promise<Buffer>>> =
  Object.assign(Object.create(null) as object, {
    gzip: promisify(gunzip),
    "x-gzip": promisify(gunzip),
    deflate: promisify(inflate),
    br: promisify(brotliDecompress),
  });

/** Lines, indented by whoever says them. */
export async function bodyLines(
  name: string,
  bytes: AsyncIterable<Uint8Array>,
  { mediaType, coding }: Pick<Reference, "mediaType" | "coding">,
): Promise<string[]> {
  const hash = createHash("sha256");
  const kept: Uint8Array[] = [];
  let [total, room] = [0, SHOWN_MAX_BYTES];
  for await (const run of bytes) {
    hash.update(run);
    total += run.length;
    if (room > 0) kept.push(run.subarray(0, room));
    room -= run.length;
  }
  const title = `${name}: ${mediaType ?? "no media type"}${coding === "identity" ? "" : `, ${coding}`}, ${size(total)}`;
  if (total === 0) return [title];
  const isWhole = total <= SHOWN_MAX_BYTES;
  const shown = await decoded(Buffer.concat(kept), coding, isWhole);
  const text = shown === null ? null : asText(shown, isWhole);
  if (text === null) return [`${title}, binary, SHA-256 ${hash.digest("hex")}`];
  const lines = (isWhole ? laidOut(text) : text).split(/\r?\n/);
  const more = isWhole ? [] : [`… ${total - SHOWN_MAX_BYTES} bytes more: --body`];
  return [title, ...lines.map((line) => `  ${line.replaceAll("\t", "  ")}`), ...more];
}

/** Null: it is none of the codings that are known, or it does not decode. */
async function decoded(bytes: Buffer, coding: string, isWhole: boolean): Promise<Buffer | null> {
  if (coding === "identity") return bytes;
  if (!isWhole) return null;
  // What is small may grow a thousandfold: then it is not shown.
  return (await DECODERS[coding]?.(bytes, { maxOutputLength: 4 * SHOWN_MAX_BYTES }).catch(() => null)) ?? null;
}

function asText(bytes: Buffer, isWhole: boolean): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, { stream: !isWhole });
    // Bytes that happen to be UTF-8 and are no text.
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

function laidOut(text: string): string {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** For `--json`: the bytes as they are, where they are text. */
export async function bodyJson(
  bytes: AsyncIterable<Uint8Array>,
): Promise<{ readonly bytes: number; readonly sha256: string; readonly text?: string; readonly base64?: string }> {
  const hash = createHash("sha256");
  const kept: Uint8Array[] = [];
  let total = 0;
  for await (const run of bytes) {
    hash.update(run);
    total += run.length;
    if (total <= SHOWN_MAX_BYTES) kept.push(run);
  }
  const frame = { bytes: total, sha256: hash.digest("hex") };
  if (total > SHOWN_MAX_BYTES) return frame;
  const whole = Buffer.concat(kept);
  const text = asText(whole, true);
  return text === null ? { ...frame, base64: whole.toString("base64") } : { ...frame, text };
}
