import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { z } from "zod";
import { encodeBase64url } from "./base64url.ts";

const secretJwks = z.object({
  keys: z
    .array(
      z.object({
        kty: z.literal("OKP"),
        crv: z.literal("Ed25519"),
        kid: z.string().min(1),
        x: z.string().min(1),
        d: z.string().min(1),
      }),
    )
    .min(1),
});

export interface PublicJwk {
  readonly kty: "OKP";
  readonly crv: "Ed25519";
  readonly kid: string;
  readonly x: string;
  readonly alg: "Ed25519";
  readonly use: "sig";
}

const utf8 = new TextEncoder();

/**
 * Keys of one purpose: the first signs, all verify, chosen by `kid`. To rotate, put a new key first and keep the old one until
 * what it signed has expired. Exactly one algorithm per key (RFC 8725bis). Signing is synchronous, so that a Durable
 * Object can seal inside of a block that nothing interleaves.
 */
export class KeyRing {
  readonly jwks: { readonly keys: readonly PublicJwk[] };
  readonly #keys: readonly z.output<typeof secretJwks>["keys"][number][];
  readonly #publicKeys = new Map<string, ReturnType<typeof createPublicKey>>();

  /** @param secret a JWK set of private Ed25519 keys as JSON. Throws without repeating any of it. */
  constructor(secret: string, name: string) {
    let parsed: ReturnType<typeof secretJwks.safeParse> | undefined;
    try {
      parsed = secretJwks.safeParse(JSON.parse(secret));
    } catch {}
    if (parsed?.success !== true) throw new Error(`secret ${name} is not a JWK set of private Ed25519 keys`);
    this.#keys = parsed.data.keys;
    for (const { kty, crv, x, kid } of this.#keys)
      this.#publicKeys.set(kid, createPublicKey({ key: { kty, crv, x }, format: "jwk" }));
    if (this.#publicKeys.size !== this.#keys.length) throw new Error(`secret ${name} has the same kid twice`);
    this.jwks = { keys: this.#keys.map(({ kty, crv, kid, x }) => ({ kty, crv, kid, x, alg: "Ed25519", use: "sig" })) };
  }

  signCompact(type: string, payload: object): string {
    const { kid, kty, crv, x, d } = this.#keys[0]!;
    const part = (value: object) => encodeBase64url(utf8.encode(JSON.stringify(value)));
    const input = `${part({ alg: "Ed25519", typ: type, kid })}.${part(payload)}`;
    const key = createPrivateKey({ key: { kty, crv, x, d }, format: "jwk" });
    return `${input}.${encodeBase64url(sign(null, utf8.encode(input), key))}`;
  }

  /** False also for a `kid` that is not ours. */
  verify(kid: unknown, data: Uint8Array, signature: Uint8Array): boolean {
    const key = typeof kid === "string" ? this.#publicKeys.get(kid) : undefined;
    return key !== undefined && signature.length === 64 && verify(null, data, key, signature);
  }
}
