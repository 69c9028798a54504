import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import * as z from "zod";
import { err, ok, type Result } from "../result.ts";
import { encodeBase64url } from "./base64url.ts";
import type { JsonObject } from "./compact.ts";

const kid = z.string().min(1);
/** In base64url. */
const bytes32 = z.string().length(43);

/**
 * Each algorithm, fully specified (RFC 9864), and its keys. What a key is says how it signs: a header can only agree
 * (RFC 8725 §3.1). Sets of Ed25519 keys without `alg` are in use; of a P-256 key, which may be meant for something else, it is asked.
 */
const KINDS = {
  Ed25519: {
    digest: null,
    jwk: z.object({
      kty: z.literal("OKP"),
      crv: z.literal("Ed25519"),
      kid,
      x: bytes32,
      alg: z.literal("Ed25519").default("Ed25519"),
    }),
  },
  ES256: {
    digest: "sha256",
    jwk: z.object({
      kty: z.literal("EC"),
      crv: z.literal("P-256"),
      kid,
      x: bytes32,
      y: bytes32,
      alg: z.literal("ES256"),
    }),
  },
} as const;

type Algorithm = keyof typeof KINDS;
export const GRANT_ALGORITHMS = ["Ed25519"] as const;
/** Debian's `jose` knows ES256, and not Ed25519. */
export const SEAL_ALGORITHMS = ["Ed25519", "ES256"] as const;

type Jwk = z.output<(typeof KINDS)[Algorithm]["jwk"]>;
export type PublicJwk = Jwk & { readonly use: "sig" };

/**
 * `dsaEncoding` concerns ES256 alone: r and s as RFC 7518 §3.4 has them, and not in DER. It goes with a JWK only (workerd
 * takes no `KeyObject` here); to import it each time costs a few microseconds.
 */
const asJws = <J extends Jwk>(key: J) => ({ key, format: "jwk", dsaEncoding: "ieee-p1363" }) as const;
const SIGNATURE_BYTES = 64;

/** Public keys, chosen by the `kid` of what they have signed. */
export interface VerifyingKeys {
  /** An error continues "its …". */
  verify(header: JsonObject, data: Uint8Array, signature: Uint8Array): Result<null, string>;
}

const setOf = (algorithms: readonly Algorithm[]) =>
  z.object({ keys: z.array(z.union(algorithms.map((algorithm) => KINDS[algorithm].jwk))).min(1) });
const privateHalves = z.object({ keys: z.array(z.object({ d: bytes32 })) });

/** A JWK set (RFC 7517) of public keys. Anything else in it is an error: an ignored key would look like a forged signature. */
export function parsePublicKeys(jwks: unknown, algorithms: readonly Algorithm[]): Result<VerifyingKeys, string> {
  const parsed = setOf(algorithms).safeParse(jwks);
  return parsed.success ? verifyingKeys(parsed.data.keys) : err(`not a JWK set of ${algorithms.join(" or ")} keys`);
}

function verifyingKeys(jwks: readonly Jwk[]): Result<VerifyingKeys, string> {
  const keys = new Map<unknown, Jwk>();
  for (const jwk of jwks) {
    if (keys.has(jwk.kid)) return err("the same kid twice");
    keys.set(jwk.kid, jwk);
    try {
      createPublicKey({ key: jwk, format: "jwk" });
    } catch {
      return err("a key that is no point of its curve");
    }
  }
  return ok({
    verify({ kid, alg }, data, signature) {
      const jwk = keys.get(kid);
      if (jwk === undefined) return err("signature does not verify: no key with its kid is known");
      if (alg !== jwk.alg) return err("alg is not that of its key");
      // Who has an ES256 signature (r, s) can write another of the same text, (r, -s): nobody signs low s alone. So a signature
      // proves its text, and its bytes identify nothing. A seal's line is no link of the chain; grants are Ed25519.
      const { digest } = KINDS[jwk.alg];
      const verifies = signature.length === SIGNATURE_BYTES && verify(digest, data, asJws(jwk), signature);
      return verifies ? ok(null) : err("signature does not verify");
    },
  });
}

function parsePrivateKeys(secret: string, algorithms: readonly Algorithm[]) {
  try {
    const set: unknown = JSON.parse(secret);
    const jwks = setOf(algorithms).parse(set).keys;
    const signer = { ...jwks[0]!, d: privateHalves.parse(set).keys[0]!.d };
    createPrivateKey({ key: signer, format: "jwk" });
    return { jwks, signer };
  } catch {
    return undefined;
  }
}

const utf8 = new TextEncoder();

/**
 * Keys of one purpose: the first signs, all verify, chosen by `kid`. To rotate, put a new key first and keep the old one until
 * what it signed has expired. Exactly one algorithm per key (RFC 8725bis). Signing is synchronous, so that a Durable
 * Object can seal inside of a block that nothing interleaves.
 */
export class KeyRing implements VerifyingKeys {
  readonly jwks: { readonly keys: readonly PublicJwk[] };
  readonly verify: VerifyingKeys["verify"];
  readonly #signer: Jwk & { readonly d: string };

  /** @param secret a JWK set of private keys as JSON. Throws without repeating any of it. */
  constructor(secret: string, name: string, algorithms: readonly Algorithm[]) {
    const set = parsePrivateKeys(secret, algorithms);
    if (set === undefined)
      throw new Error(`secret ${name} is not a JWK set of private ${algorithms.join(" or ")} keys`);
    const keys = verifyingKeys(set.jwks);
    if (!keys.ok) throw new Error(`secret ${name} has ${keys.error}`);
    this.jwks = { keys: set.jwks.map((jwk) => ({ ...jwk, use: "sig" })) };
    this.verify = keys.value.verify;
    this.#signer = set.signer;
  }

  signCompact(type: string, payload: object): string {
    const { alg, kid } = this.#signer;
    const part = (value: object) => encodeBase64url(utf8.encode(JSON.stringify(value)));
    const input = `${part({ alg, typ: type, kid })}.${part(payload)}`;
    const signature = sign(KINDS[alg].digest, utf8.encode(input), asJws(this.#signer));
    return `${input}.${encodeBase64url(signature)}`;
  }
}
