import { createHash } from "node:crypto";
import { decodeBase64url, encodeBase64url } from "./base64url.ts";
import type { JsonObject } from "./compact.ts";

/** The signature algorithms an instance may prove with, each fully specified (RFC 9864). */
export const PROOF_ALGORITHMS = ["ES256", "Ed25519"] as const;
export type ProofAlgorithm = (typeof PROOF_ALGORITHMS)[number];

interface KeyKind {
  readonly kty: string;
  readonly crv: string;
  /** Required public members (RFC 7638 §3.2), besides `kty` and `crv`, with their length in bytes. */
  readonly members: Readonly<Record<string, number>>;
  readonly importAs: { readonly name: string; readonly namedCurve?: string };
  readonly verifyAs: { readonly name: string; readonly hash?: string };
}

const KINDS: Readonly<Record<ProofAlgorithm, KeyKind>> = {
  ES256: {
    kty: "EC",
    crv: "P-256",
    members: { x: 32, y: 32 },
    importAs: { name: "ECDSA", namedCurve: "P-256" },
    verifyAs: { name: "ECDSA", hash: "SHA-256" },
  },
  Ed25519: {
    kty: "OKP",
    crv: "Ed25519",
    members: { x: 32 },
    importAs: { name: "Ed25519" },
    verifyAs: { name: "Ed25519" },
  },
};

const PRIVATE_MEMBERS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/**
 * Points of Ed25519 with a small order, in every encoding that is decoded: with such a key one published signature
 * verifies any text, so it is nobody's own (the list of libsodium, with either sign).
 */
const SMALL_ORDER: ReadonlySet<string> = new Set(
  [
    `01${"00".repeat(31)}`,
    "00".repeat(32),
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    `ec${"ff".repeat(30)}7f`,
    `ed${"ff".repeat(30)}7f`,
    `ee${"ff".repeat(30)}7f`,
  ].flatMap((hex) => {
    const bytes = Uint8Array.from({ length: 32 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
    const negative = bytes.with(31, bytes[31]! | 0x80);
    return [encodeBase64url(bytes), encodeBase64url(negative)];
  }),
);

/** A public key, as a proof shows it, reduced to the members that make its thumbprint. */
export interface PublicKey {
  readonly algorithm: ProofAlgorithm;
  readonly jwk: Readonly<Record<string, string>>;
  /** RFC 7638 thumbprint, base64url SHA-256: the instance's id. */
  readonly thumbprint: string;
}

export const isProofAlgorithm = (alg: unknown): alg is ProofAlgorithm =>
  typeof alg === "string" && (PROOF_ALGORITHMS as readonly string[]).includes(alg);

/** Reads the `jwk` of a proof for use with exactly one algorithm. `undefined`: not such a key, or not only public. */
export function parsePublicKey(algorithm: ProofAlgorithm, jwk: JsonObject): PublicKey | undefined {
  const kind = KINDS[algorithm];
  if (jwk["kty"] !== kind.kty || jwk["crv"] !== kind.crv) return undefined;
  if (PRIVATE_MEMBERS.some((member) => Object.hasOwn(jwk, member))) return undefined;
  if (jwk["alg"] !== undefined && jwk["alg"] !== algorithm) return undefined;
  if (jwk["use"] !== undefined && jwk["use"] !== "sig") return undefined;
  const members: Record<string, string> = { crv: kind.crv, kty: kind.kty };
  for (const [member, bytes] of Object.entries(kind.members)) {
    const value = jwk[member];
    if (typeof value !== "string" || decodeBase64url(value)?.length !== bytes) return undefined;
    members[member] = value;
  }
  if (algorithm === "Ed25519" && SMALL_ORDER.has(members["x"]!)) return undefined;
  // RFC 7638 §3: the required members, in lexicographic order, without white space.
  const canonical = JSON.stringify(Object.fromEntries(Object.entries(members).sort(([a], [b]) => (a < b ? -1 : 1))));
  return { algorithm, jwk: members, thumbprint: createHash("sha256").update(canonical).digest("base64url") };
}

const IMPORTED_MAX = 2_000;
const imported = new Map<string, CryptoKey>();

/**
 * Verifies a signature with a shown key. A key that is no point of its curve verifies nothing.
 *
 * @param isHolder the thumbprint is that of a verified grant. Only then is an imported key kept: anyone can show one of their own.
 */
export async function verifyWith(
  key: PublicKey,
  data: Uint8Array,
  signature: Uint8Array,
  isHolder: boolean,
): Promise<boolean> {
  const kind = KINDS[key.algorithm];
  const known = imported.get(key.thumbprint);
  let cryptoKey: CryptoKey;
  try {
    const jwk = key.jwk as unknown as JsonWebKey;
    cryptoKey = known ?? (await crypto.subtle.importKey("jwk", jwk, kind.importAs, false, ["verify"]));
  } catch {
    return false;
  }
  const isGood = await crypto.subtle.verify(kind.verifyAs, cryptoKey, signature, data);
  if (isGood && isHolder && known === undefined) {
    if (imported.size >= IMPORTED_MAX) imported.delete(imported.keys().next().value!);
    imported.set(key.thumbprint, cryptoKey);
  }
  return isGood;
}
