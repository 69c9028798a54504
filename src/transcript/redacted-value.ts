import { createHash } from "node:crypto";
import { sha256Hex } from "./envelope.ts";

/** Whose list of `redacted` values a value stands in: that of the call (or the refusal), or that of the answer. */
export type ValueSide = "request" | "answer";

/**
 * The salt of one value, derived from the call's, by its place (from 0) in `redacted`. So one value can be proven by
 * giving its salt away, and no other can be guessed by it.
 */
export const saltOfValue = (salt: Uint8Array, side: ValueSide, place: number): Uint8Array =>
  createHash("sha256").update(salt).update(`${side} ${place}`).digest();

/** What the record says of a value. */
export const valueDigest = (saltOfValue: Uint8Array, value: Uint8Array): string => sha256Hex(saltOfValue, value);
