import { createHash } from "node:crypto";
import { compactVerify, errors } from "jose";
import type { IdentityProviderConfig } from "../config/define.ts";
import { hasType, isSeconds, type JsonObject, parseCompact, type UnverifiedJws } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";
import { emailDigest } from "./email-digest.ts";
import { keysAt } from "./jwks.ts";

const ID_TOKEN_MAX_CHARS = 32_768;
const SKEW_SECONDS = 60;
/** Groups beyond this many are not read: the token is refused rather than cut. */
const GROUPS_MAX = 500;

/** A person, as the organisation's identity provider vouches for them. */
export interface Human {
  /** Stable, opaque, and fit for keys: base64url SHA-256 of `iss` and `sub`. */
  readonly id: string;
  /** Null where the provider named no address. */
  readonly emailDigest: string | null;
  /** The provider itself does not say that it has verified that address, where it says anything of it (OpenID Connect Core §5.1). */
  readonly isEmailUnverified: boolean;
  readonly groups: readonly string[];
  /** For the erasable body of the record. */
  readonly claims: JsonObject;
  /** When the provider said all this, by its clock. */
  readonly issuedAtMs: number;
  /**
   * The same, and no later than now by the gate's: what is here was said by now. Else a loss of a moment later would look older than
   * what a clock said that runs ahead.
   */
  readonly groupsAtMs: number;
  readonly expiresAtMs: number;
}

/** Why nobody is known by a token. `unavailable`: the token was not looked at, because the keys to do so are not to be had. */
export interface IdTokenRefusal {
  readonly kind: "invalid" | "unavailable";
  readonly reason: string;
}

export const humanId = (issuer: string, subject: string): string =>
  createHash("sha256")
    .update(JSON.stringify([issuer, subject]))
    .digest("base64url");

/**
 * Verifies an ID token for exactly one audience (OpenID Connect Core §3.1.3.7). Kinds of token are kept apart by
 * `typ`: a grant, a proof, a logout token or a security event is never a person's.
 */
export async function verifyIdToken(
  token: string,
  provider: IdentityProviderConfig,
  audience: string,
  nowMs: number,
): Promise<Result<Human, IdTokenRefusal>> {
  const invalid = (reason: string) => err({ kind: "invalid", reason } as const);
  const jws = parseCompact(token, ID_TOKEN_MAX_CHARS);
  if (!jws.ok) return invalid(jws.error);
  const { header, payload } = jws.value;
  if (header["typ"] !== undefined && !hasType(header, "jwt")) return invalid("typ is of another kind of token");
  const signed = await verifyByProvider(token, jws.value, provider, nowMs);
  if (!signed.ok) return signed;
  const human = parseClaims(payload, provider, audience, Math.floor(nowMs / 1000));
  return human.ok ? human : invalid(human.error);
}

/** Whether it was this provider who signed it, by a key and an algorithm that it may sign with. */
export async function verifyByProvider(
  token: string,
  { header, payload }: Pick<UnverifiedJws, "header" | "payload">,
  provider: IdentityProviderConfig,
  nowMs: number,
): Promise<Result<null, IdTokenRefusal>> {
  const invalid = (reason: string) => err({ kind: "invalid", reason } as const);
  const { alg } = header;
  if (typeof alg !== "string" || !(provider.algorithms as readonly string[]).includes(alg))
    return invalid("alg is not allowed");
  if (payload["iss"] !== provider.issuer) return invalid("iss is not the configured provider");
  const keys = await keysAt(provider.jwksUri, header["kid"], nowMs);
  if (keys === undefined) return err({ kind: "unavailable", reason: "the provider's keys could not be read" });
  try {
    await compactVerify(token, keys, { algorithms: [alg] });
  } catch (error) {
    return invalid(
      error instanceof errors.JOSEError ? `the signature: ${error.code}` : "the signature does not verify",
    );
  }
  return ok(null);
}

function parseClaims(
  claims: JsonObject,
  provider: IdentityProviderConfig,
  audience: string,
  now: number,
): Result<Human, string> {
  const { aud, azp, exp, nbf, iat } = claims;
  const audiences = typeof aud === "string" ? [aud] : Array.isArray(aud) ? aud : [];
  // One audience alone: a token that is good elsewhere too could have been taken from there.
  if (audiences.length !== 1 || audiences[0] !== audience) return err("aud is another client");
  if (azp !== undefined && azp !== audience) return err("azp is another client");
  if (!isSeconds(exp) || exp + SKEW_SECONDS <= now) return err("expired");
  if (!isSeconds(iat) || iat - SKEW_SECONDS > now) return err("iat is in the future");
  if (iat + provider.maxTokenAgeSeconds + SKEW_SECONDS <= now) return err("iat is longer ago than maxTokenAgeSeconds");
  if (nbf !== undefined && (!isSeconds(nbf) || nbf - SKEW_SECONDS > now)) return err("not valid yet");
  return humanOfClaims(claims, provider, { iat, exp, now });
}

/** Who it is about, whatever kind of token of this provider says so. */
export function humanOfClaims(
  claims: JsonObject,
  provider: IdentityProviderConfig,
  { iat, exp, now }: { readonly iat: number; readonly exp: number; readonly now: number },
): Result<Human, string> {
  const { sub } = claims;
  if (typeof sub !== "string" || sub === "" || sub.length > 255) return err("sub");
  if (claims["events"] !== undefined) return err("a security event is not a person");
  const groups = claims[provider.groupsClaim] ?? [];
  if (!Array.isArray(groups) || groups.length > GROUPS_MAX || !groups.every((group) => typeof group === "string"))
    return err("the groups claim is not a list of strings");
  const { email } = claims;
  const digest = typeof email === "string" && email !== "" ? emailDigest(email) : null;
  const times = { issuedAtMs: iat * 1000, groupsAtMs: Math.min(iat, now) * 1000, expiresAtMs: exp * 1000 };
  // A claim that is there vouches in these two spellings alone; a provider that leaves it out is taken by its word on addresses.
  const isEmailUnverified = ![undefined, true, "true"].includes(claims["email_verified"] as undefined);
  return ok({ id: humanId(provider.issuer, sub), emailDigest: digest, isEmailUnverified, groups, claims, ...times });
}
