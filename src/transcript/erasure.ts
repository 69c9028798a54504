import * as z from "zod";
import { hasType, parseCompact } from "../grant/compact.ts";
import type { KeyRing, VerifyingKeys } from "../grant/keys.ts";
import { err, ok, type Result } from "../result.ts";
import { UNKNOWN_VERSION } from "./envelope.ts";
import { KEY_ID } from "./layout.ts";

const ERASURE_TYPE = "portcullis-erasure+jwt";
const ERASURE_MAX_CHARS = 8_192;

/** Three bytes a character and base64url: the longest certificate is far below its bound. */
export const ERASURE_REASON_MAX_CHARS = 1_000;

const id = z.string().regex(KEY_ID);

const erasurePayload = z
  .strictObject({
    iss: z.string(),
    id,
    human: id,
    /** The admin's human id. */
    by: z.string(),
    reason: z.string().max(ERASURE_REASON_MAX_CHARS),
    at: z.number().int().nonnegative(),
    /** Bodies of records up to this time were erased, and none after it. */
    before: z.number().int().nonnegative(),
    /** Only of this task; without it of all. */
    task: id.optional(),
  })
  .refine(({ at, before }) => before <= at);

/** What a certificate states: who had which bodies erased, and why. Times in milliseconds. */
export type Erasure = z.output<typeof erasurePayload>;

/**
 * The one line of the object at `erasureKey(human, id)`; a newline follows. Signed with the key that seals segments: an
 * erasure and a loss look the same but for this.
 */
export const writeErasureLine = (ring: KeyRing, erasure: Erasure): string =>
  JSON.stringify({ v: 1, type: "erasure", jws: ring.signCompact(ERASURE_TYPE, erasurePayload.parse(erasure)) });

/** Anyone with the public keys can do this. */
export function readErasureLine(line: string, keys: VerifyingKeys): Result<Erasure, string> {
  let jws: unknown;
  try {
    const value = JSON.parse(line) as { v?: unknown; jws?: unknown } | null;
    if (value !== null && typeof value.v === "number" && value.v !== 1)
      return err(`the certificate has ${UNKNOWN_VERSION}`);
    jws = value?.jws;
  } catch {
    return err("not an erasure certificate");
  }
  // Held to the one spelling that its writer has: nothing can hide beside what is signed.
  if (typeof jws !== "string" || line !== JSON.stringify({ v: 1, type: "erasure", jws }))
    return err("not an erasure certificate as it was written");
  const parsed = parseCompact(jws, ERASURE_MAX_CHARS);
  if (!parsed.ok) return err(`the certificate: ${parsed.error}`);
  const { header, payload, signingInput, signature } = parsed.value;
  if (!hasType(header, ERASURE_TYPE)) return err("the certificate is another kind of token");
  const verified = keys.verify(header, signingInput, signature);
  if (!verified.ok) return err(`the certificate's ${verified.error}`);
  const erasure = erasurePayload.safeParse(payload);
  return erasure.success ? ok(erasure.data) : err("the certificate's payload is malformed");
}
