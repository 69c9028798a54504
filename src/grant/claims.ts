import { createHash } from "node:crypto";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { type Entry, readEntries } from "../scope/entry.ts";
import { hasType, isSeconds, parseCompact, type UnverifiedJws } from "./compact.ts";
import type { KeyRing } from "./keys.ts";

/** Headers of this length still pass every proxy that takes 32 KiB of them. */
export const GRANT_MAX_CHARS = 16_384;

/**
 * The claims of a grant: an RFC 9068 access token that states its own scope and nothing about who sent it.
 * `sub` is opaque and of this instance alone; the human and the chain stay with `AgentInstance`.
 */
export interface GrantClaims {
  readonly iss: string;
  readonly sub: string;
  /** RFC 8707 resource URLs of the granted upstreams. */
  readonly aud: readonly string[];
  readonly client_id: string;
  readonly jti: string;
  /** Seconds. */
  readonly iat: number;
  readonly exp: number;
  readonly cnf: { readonly jkt: string };
  /** RFC 9396. */
  readonly authorization_details: readonly Json[];
}

const utf8 = new TextEncoder();

declare const verified: unique symbol;

/** A grant whose signature and claims hold. Only `verifyGrant` makes one. */
export interface Grant {
  readonly [verified]: true;
  readonly jti: string;
  readonly instance: string;
  readonly audiences: readonly string[];
  readonly expiresAtMs: number;
  readonly entries: readonly Entry[];
  /** base64url SHA-256 of the token: the `ath` its proofs must show. */
  readonly digest: string;
}

/** Base64url characters of header and signature, with room for a long `kid`. */
const GRANT_FRAME_CHARS = 512;

/** Whether a grant with these claims is one that `parseGrant` reads. */
export const fitsGrant = (claims: GrantClaims): boolean =>
  Math.ceil((utf8.encode(JSON.stringify(claims)).length * 4) / 3) + GRANT_FRAME_CHARS <= GRANT_MAX_CHARS;

export const issueGrant = (ring: KeyRing, claims: GrantClaims): string => ring.signCompact("at+jwt", claims);

/** The resource URL of an upstream, as in `aud` and RFC 9728 metadata. */
export const resourceOf = (origin: string, upstream: string): string => `${origin}/${upstream}`;

/** Of all tokens together; what is parsed from them takes a small multiple. */
const CACHED_MAX_CHARS = 4_194_304;
/**
 * Grants that verified, by their exact text. Sound, because one text has one meaning for its whole life: what can
 * change (expiry, switches, ceilings) is never answered from here.
 */
const cached = new Map<string, { readonly ring: KeyRing; readonly grant: Grant }>();
let cachedChars = 0;

export function parseGrant(token: string): Result<UnverifiedJws, string> {
  const jws = parseCompact(token, GRANT_MAX_CHARS);
  if (!jws.ok) return jws;
  if (!hasType(jws.value.header, "at+jwt")) return err('typ is not "at+jwt"');
  if (jws.value.header["alg"] !== "Ed25519") return err("alg is not Ed25519");
  return jws;
}

/** Signature first, then claims (RFC 9068 §4). */
export function verifyGrant(token: string, ring: KeyRing, issuer: string, nowMs: number): Result<Grant, string> {
  const known = cached.get(token);
  if (known !== undefined && known.ring === ring) return unexpired(known.grant, nowMs);
  const jws = parseGrant(token);
  if (!jws.ok) return jws;
  const { header, signingInput, signature } = jws.value;
  if (!ring.verify(header, signingInput, signature).ok) return err("the signature does not verify");
  const grant = parseClaims(jws.value, issuer);
  if (!grant.ok) return grant;
  remember(token, ring, grant.value);
  return unexpired(grant.value, nowMs);
}

/** The oldest go first. One token is far shorter than the bound. */
function remember(token: string, ring: KeyRing, grant: Grant): void {
  // Of the same text and another ring: the newer one counts.
  forget(token);
  for (const oldest of cached.keys()) {
    if (cachedChars + token.length <= CACHED_MAX_CHARS) break;
    forget(oldest);
  }
  cached.set(token, { ring, grant });
  cachedChars += token.length;
}

function forget(token: string): void {
  if (cached.delete(token)) cachedChars -= token.length;
}

const unexpired = (grant: Grant, nowMs: number): Result<Grant, string> =>
  nowMs < grant.expiresAtMs ? ok(grant) : err("expired");

function parseClaims(jws: UnverifiedJws, issuer: string): Result<Grant, string> {
  const { iss, sub, aud, client_id, jti, iat, exp, cnf, authorization_details } = jws.payload;
  if (iss !== issuer) return err("iss is not this gate");
  if (typeof sub !== "string" || typeof client_id !== "string" || typeof jti !== "string")
    return err("a claim is missing");
  if (!Array.isArray(aud) || !aud.every((a): a is string => typeof a === "string")) return err("aud");
  if (!isSeconds(iat) || !isSeconds(exp)) return err("iat or exp");
  const jkt = typeof cnf === "object" && cnf !== null && !Array.isArray(cnf) ? (cnf as { jkt?: Json }).jkt : undefined;
  if (typeof jkt !== "string") return err("not bound to a key (cnf.jkt)");
  const entries = readEntries(authorization_details, "authorization_details");
  if (!entries.ok) return err(`${entries.error.path}: ${entries.error.message}`);
  return ok({
    jti,
    instance: jkt,
    audiences: aud,
    expiresAtMs: exp * 1000,
    entries: entries.value,
    digest: createHash("sha256").update(jws.token).digest("base64url"),
  } as unknown as Grant);
}
