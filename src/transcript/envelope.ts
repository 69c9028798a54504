import { createHash } from "node:crypto";
import type { Json } from "../scope/call.ts";

/** The version of the format. A reader refuses a version that it does not know. */
export const ENVELOPE_VERSION = 1;
export const UNKNOWN_VERSION = "a version of the format that is not known";

export const RECORD_TYPES = [
  "enrolled",
  "renewed",
  "call",
  "answer",
  "refused",
  "switched",
  "signal",
  "delegated",
  "approval",
  "ended",
  "act",
  "read",
  "stored",
] as const;
/** `act` (an admin's deed), `read` (of a transcript) and `stored` (a segment) stand in journals, `refused` in both, the rest in transcripts of instances. */
export type RecordType = (typeof RECORD_TYPES)[number];

/** Fields of a record besides the frame. */
export type Fields = { readonly [key: string]: Json };

/** What every envelope carries first, in this order. */
export interface Frame {
  readonly v: typeof ENVELOPE_VERSION;
  readonly type: RecordType;
  /** From 0, without gaps, one by one. */
  readonly seq: number;
  /** Milliseconds since 1970, on the clock of the object that wrote it. */
  readonly at: number;
  /** SHA-256, in hex, of the previous line's exact bytes without its newline; 64 zeros before the first. */
  readonly prev: string;
}

export type Envelope = Frame & Fields;

/** A body an envelope refers to. The body and its salt lie beside, and can be erased; this stays. */
export interface BodyReference {
  /** SHA-256, in hex, of the salt followed by the body. Without the salt it confirms no guess. Null: not known, see `complete`. */
  readonly digest: string | null;
  readonly bytes: number;
  readonly mediaType: string | null;
  /** The content coding in which the recorded bytes stand, `identity` for none. */
  readonly coding: string;
  /** False: the sender had more, or what was passed is longer than what was kept; `mayMiss` says by how much at most. */
  readonly complete: boolean;
  readonly mayMiss?: number;
}

export const FIRST_PREV = "0".repeat(64);

export const sha256Hex = (...parts: readonly (string | Uint8Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/**
 * The one spelling of an envelope: a JSON line, its frame first. What is hashed is these bytes, never a re-encoding. A text that
 * was cut within a character (RFC 8259 §8.2) ends in U+FFFD: a line that holds half of one is no strict JSON to who verifies it,
 * and strangers could have one written.
 */
export function writeEnvelope(frame: Frame, fields: Fields): string {
  const line = JSON.stringify({ ...frame, ...fields });
  // Half of a character is always escaped, so almost no line is written twice.
  return line.includes("\\ud") ? JSON.stringify({ ...frame, ...fields }, wellFormed) : line;
}

const wellFormed = (_: string, value: unknown): unknown => (typeof value === "string" ? value.toWellFormed() : value);
