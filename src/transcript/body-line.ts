import { type RawPart, rawBodyName } from "./layout.ts";

/**
 * One line of a bodies object: a run of a body's bytes, or what stands for its raw objects. Lines of one body follow
 * each other in `index`, from 0; a `raw` line is the last.
 */
export interface BodyLine {
  readonly v: 1;
  /** `seq` of the envelope the body belongs to: of the `call` for both parts of a call. */
  readonly seq: number;
  readonly part: BodyPart;
  readonly index: number;
  /** Hex, on the run with index 0. */
  readonly salt?: string;
  /** The bytes, as text where they are UTF-8, else in base64. */
  readonly text?: string;
  readonly base64?: string;
  /** Instead of bytes: what the keys of the body's raw objects begin with, within its partition (`rawBodyName`). */
  readonly raw?: string;
}

export type BodyPart = RawPart | "claims";

export const SALT_BYTES = 16;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Exact both ways: what can't be told from its text goes as base64, and so does text that escapes would make longer
 * than that. So a line is never much longer than four thirds of its bytes, whatever an agent or an upstream sent.
 */
export function writeBodyLine(line: Omit<BodyLine, "v" | "text" | "base64" | "raw">, bytes: Uint8Array): string {
  const frame = { v: 1, ...line };
  try {
    const asText = JSON.stringify({ ...frame, text: strict.decode(bytes) });
    if (asText.length <= FRAME_CHARS + Math.ceil((bytes.length * 4) / 3)) return asText;
  } catch {
    // Not UTF-8.
  }
  return JSON.stringify({ ...frame, base64: toBase64(bytes) });
}

/** The line that stands for all raw objects of a body, at the index where their bytes belong. */
export const writeRawLine = ({ seq, part, index, salt }: RawLine): string =>
  JSON.stringify({ v: 1, seq, part, index, ...(salt === undefined ? {} : { salt }), raw: rawBodyName(seq, part) });

export type RawLine = Pick<BodyLine, "seq" | "index" | "salt"> & { readonly part: RawPart };

/** Room for what stands around the bytes. */
const FRAME_CHARS = 256;

export function readBodyBytes(line: BodyLine): Uint8Array {
  if (line.text !== undefined) return new TextEncoder().encode(line.text);
  return Uint8Array.from(atob(line.base64 ?? ""), (char) => char.charCodeAt(0));
}

function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary);
}
