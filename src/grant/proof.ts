import { err, ok, type Result } from "../result.ts";
import {
  hasType,
  isSeconds,
  type JsonObject,
  parseBody,
  parseHeader,
  splitCompact,
  type UnverifiedBody,
} from "./compact.ts";
import { isProofAlgorithm, type PublicKey, parsePublicKey, verifyWith } from "./jwk.ts";

/** RFC 9449 §4.2. A proof is a few hundred characters; real ones stay under 1 kB. */
export const PROOF_MAX_CHARS = 8_192;
/** A `jti` is kept per call for the length of the window. */
export const PROOF_JTI_MAX_CHARS = 128;
/** How old a proof may be, and how far the agent's clock may run ahead (RFC 9449 §11.1; SEP-1932 allows ±5 min). */
export const PROOF_MAX_AGE_MS = 120_000;
export const PROOF_MAX_AHEAD_MS = 30_000;

const OTHER_KEYS = ["jku", "x5u", "x5c"];

/** What is left of a verified proof: enough to refuse its replay. */
export interface Proof {
  readonly jti: string;
  readonly issuedAtMs: number;
  readonly thumbprint: string;
}

/** A proof that is well-formed, with a usable key, whose signature nobody has looked at yet. */
export interface UnverifiedProof {
  /** The header, as it was sent. */
  readonly header: string;
  readonly jws: UnverifiedBody;
  readonly key: PublicKey;
}

const KNOWN_MAX = 2_000;
/** A header with a P-256 key is about 250 characters. 2,000 headers of this length with their keys stay below 3 MB. */
const KNOWN_MAX_CHARS = 512;
/**
 * Keys of headers, by the header's exact text: an instance sends the same one with every proof. It says which key is
 * shown, never that the proof is good. INVARIANT: filled by proofs that verified beside a grant of the same key, and by nothing else:
 * whoever holds no grant can't make it grow, nor push anyone out.
 */
const known = new Map<string, PublicKey>();

/** RFC 9449 §4.3 checks 1 to 7 but for the signature. */
export function parseProof(text: string): Result<UnverifiedProof, string> {
  const parts = splitCompact(text, PROOF_MAX_CHARS);
  if (!parts.ok) return parts;
  const { header } = parts.value;
  const cached = known.get(header);
  const key = cached === undefined ? parseProofHeader(header) : ok(cached);
  if (!key.ok) return key;
  const jws = parseBody(parts.value);
  return jws.ok ? ok({ header, jws: jws.value, key: key.value }) : jws;
}

const utf8 = new TextEncoder();
const ascii = new TextDecoder();

function remember({ header, key }: UnverifiedProof): void {
  if (header.length > KNOWN_MAX_CHARS || known.has(header)) return;
  if (known.size >= KNOWN_MAX) known.delete(known.keys().next().value!);
  // A copy: as a slice it would keep the whole proof.
  known.set(ascii.decode(utf8.encode(header)), key);
}

function parseProofHeader(text: string): Result<PublicKey, string> {
  const header = parseHeader(text);
  if (!header.ok) return header;
  const { typ, alg, jwk } = header.value;
  if (typeof typ !== "string" || !hasType(header.value, "dpop+jwt")) return err('typ is not "dpop+jwt"');
  if (!isProofAlgorithm(alg)) return err("alg is not one of ES256, Ed25519");
  // A key beside the one shown, by reference or certificate, would be one that nobody looked at.
  if (OTHER_KEYS.some((name) => Object.hasOwn(header.value, name))) return err("a key besides jwk");
  if (typeof jwk !== "object" || jwk === null || Array.isArray(jwk)) return err("no jwk in the header");
  const key = parsePublicKey(alg, jwk as JsonObject);
  return key === undefined ? err("jwk is not a public key for alg") : ok(key);
}

export interface ProofExpectation {
  readonly method: string;
  /** Scheme, host and path of the request as the gate knows them; never from a header. */
  readonly url: string;
  /**
   * base64url SHA-256 of the access token, where one comes along. INVARIANT: of a grant that has verified, and is bound to the key that
   * the proof shows.
   */
  readonly tokenDigest: string | undefined;
  readonly nowMs: number;
}

/** Signature first, then claims: RFC 9449 §4.3 checks 6 and 8 to 12. Replay is the instance's to refuse. */
export async function verifyProof(proof: UnverifiedProof, expected: ProofExpectation): Promise<Result<Proof, string>> {
  const { jws, key } = proof;
  const isHolder = expected.tokenDigest !== undefined;
  if (!(await verifyWith(key, jws.signingInput, jws.signature, isHolder))) return err("the signature does not verify");
  const { jti, htm, htu, iat, ath } = jws.payload;
  if (typeof jti !== "string" || jti.length === 0 || jti.length > PROOF_JTI_MAX_CHARS) return err("jti");
  if (htm !== expected.method) return err("htm is another method");
  if (typeof htu !== "string" || !isSameTarget(htu, expected.url)) return err("htu is another URL");
  if (!isSeconds(iat)) return err("iat");
  const issuedAtMs = iat * 1000;
  if (!isFresh(issuedAtMs, expected.nowMs)) return err("iat is outside of the window");
  if (expected.tokenDigest !== undefined && ath !== expected.tokenDigest) return err("ath is of another token");
  if (isHolder) remember(proof);
  return ok({ jti, issuedAtMs, thumbprint: key.thumbprint });
}

/** Asked at the edge, and again by the instance on its own clock: what it has forgotten is surely too old. */
export const isFresh = (issuedAtMs: number, nowMs: number): boolean =>
  issuedAtMs > nowMs - PROOF_MAX_AGE_MS && issuedAtMs < nowMs + PROOF_MAX_AHEAD_MS;

/** Compares without query and fragment, after scheme- and syntax-based normalisation (RFC 9449 §4.3, RFC 3986 §6.2.2-3). */
export function isSameTarget(htu: string, url: string): boolean {
  const a = normaliseTarget(htu);
  return a !== undefined && a === normaliseTarget(url);
}

function normaliseTarget(text: string): string | undefined {
  const parts = /^(https?):\/\/([^/?#\\@]+)([^?#]*)/i.exec(text);
  if (parts === null) return undefined;
  const scheme = parts[1]!.toLowerCase();
  const host = parts[2]!.toLowerCase().replace(scheme === "https" ? /:443$/ : /:80$/, "");
  const path = parts[3] === "" ? "/" : parts[3]!;
  return `${scheme}://${host}${path.replace(/%[0-9a-fA-F]{2}/g, normaliseEscape)}`;
}

/** Unreserved characters need no escape; the rest is the same in upper-case hex. */
function normaliseEscape(triplet: string): string {
  const char = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
  return /[A-Za-z0-9\-._~]/.test(char) ? char : triplet.toUpperCase();
}
