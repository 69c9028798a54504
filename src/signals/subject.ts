import * as z from "zod";
import type { JsonObject } from "../grant/compact.ts";
import { emailDigest } from "../identity/email-digest.ts";
import { humanId } from "../identity/id-token.ts";
import { err, ok, type Result } from "../result.ts";
import { type SetError, setError } from "./set-error.ts";

/** Whom a security event is about. */
export type Subject =
  /** A human's id, or the digest of an address: either names a human in a switch. */
  | { readonly kind: "human"; readonly human: string }
  /** Not to be interpreted here, and so not to be acted upon (SSF 1.0 §3.3). */
  | { readonly kind: "discarded"; readonly why: string };

/**
 * Members of a complex subject besides `user` only narrow which of the human's sessions is meant. The gate knows no
 * sessions of the provider: acting on all that the human set in motion contains it.
 */
const NARROWING: readonly string[] = ["session", "device", "tenant", "application", "org_unit", "group"];

const issSub = z.looseObject({ format: z.literal("iss_sub"), iss: z.string(), sub: z.string().min(1).max(255) });
/** Compared by digest with what the provider gave, so whatever a provider takes for an address is one. */
const address = z
  .string()
  .max(320)
  .regex(/^[^@]+@[^@]+$/);
const email = z.looseObject({ format: z.literal("email"), email: address });
const simple = z.discriminatedUnion("format", [issSub, email]);
const complex = z.looseObject({ format: z.literal("complex"), user: z.unknown().optional() });

export interface SubjectRules {
  /** Of the provider whose humans the transmitter speaks of. */
  readonly issuer: string;
  readonly criticalMembers: readonly string[];
}

/** Pure. Subject identifiers of RFC 9493: of humans of one provider, or of an address, which any provider may have given. */
export function parseSubject(subject: JsonObject, rules: SubjectRules): Result<Subject, SetError> {
  const parsed = complex.safeParse(subject);
  if (!parsed.success) return parseUser(subject, "sub_id", rules);
  const { format: _, user, ...others } = parsed.data;
  const unknown = Object.keys(others).find((name) => rules.criticalMembers.includes(name) && !NARROWING.includes(name));
  if (unknown !== undefined)
    return ok({ kind: "discarded", why: "its subject has a critical member that is not understood" });
  if (user === undefined) return err(setError("invalid_request", "sub_id.user is missing: only people are known here"));
  return parseUser(user, "sub_id.user", rules);
}

function parseUser(value: unknown, at: string, { issuer }: SubjectRules): Result<Subject, SetError> {
  const parsed = simple.safeParse(value);
  if (!parsed.success)
    return err(setError("invalid_request", `${at}: not known here; iss_sub and email are, in the shape of RFC 9493`));
  const subject = parsed.data;
  if (subject.format === "email") return ok({ kind: "human", human: emailDigest(subject.email) });
  // INVARIANT: nobody speaks of another provider's accounts. An address (above) reaches whoever has it, at any provider.
  if (subject.iss !== issuer)
    return err(setError("access_denied", `${at}.iss is not the provider that this transmitter speaks for`));
  return ok({ kind: "human", human: humanId(issuer, subject.sub) });
}
