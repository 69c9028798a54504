import * as z from "zod";
import { hasType, parseCompact } from "../grant/compact.ts";
import type { KeyRing, VerifyingKeys } from "../grant/keys.ts";
import { err, ok, type Result } from "../result.ts";
import { UNKNOWN_VERSION } from "./envelope.ts";

const SEAL_TYPE = "portcullis-seal+jwt";
const SEAL_MAX_CHARS = 4_096;

const sealPayload = z.strictObject({
  iss: z.string(),
  /** Whose log: an instance's id, or a journal's name. */
  log: z.string(),
  first: z.number().int().nonnegative(),
  last: z.number().int().nonnegative(),
  /** Hash before the first record, and of the last record. */
  prev: z.string().regex(/^[0-9a-f]{64}$/),
  head: z.string().regex(/^[0-9a-f]{64}$/),
  at: z.number().int(),
  /** The log ends with this segment. */
  final: z.boolean(),
});

/** What a seal states: these records, in this order, and nothing between them. */
export type Seal = z.output<typeof sealPayload>;

/** Last line of every segment. It is not part of the chain: it signs the chain's head. */
export const writeSealLine = (ring: KeyRing, seal: Seal): string =>
  JSON.stringify({ v: 1, type: "seal", jws: ring.signCompact(SEAL_TYPE, seal) });

/** Anyone with the public keys can do this. */
export function readSealLine(line: string, keys: VerifyingKeys): Result<Seal, string> {
  let jws: unknown;
  try {
    const value = JSON.parse(line) as { v?: unknown; type?: unknown; jws?: unknown };
    if (value.type !== "seal") return err("the last line is not a seal");
    if (value.v !== 1) return err(`the seal has ${UNKNOWN_VERSION}`);
    jws = value.jws;
  } catch {
    return err("the last line is not a seal");
  }
  if (typeof jws !== "string") return err("the seal has no signature");
  const parsed = parseCompact(jws, SEAL_MAX_CHARS);
  if (!parsed.ok) return err(`the seal: ${parsed.error}`);
  const { header, payload, signingInput, signature } = parsed.value;
  if (!hasType(header, SEAL_TYPE)) return err("the seal is another kind of token");
  const verified = keys.verify(header, signingInput, signature);
  if (!verified.ok) return err(`the seal's ${verified.error}`);
  const seal = sealPayload.safeParse(payload);
  return seal.success ? ok(seal.data) : err("the seal's payload is malformed");
}
