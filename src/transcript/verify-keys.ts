import { createPublicKey, verify } from "node:crypto";
import { z } from "zod";
import { err, ok, type Result } from "../result.ts";

const publicJwks = z.object({
  keys: z
    .array(
      z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), kid: z.string().min(1), x: z.string().length(43) }),
    )
    .min(1),
});

/** The public halves of the keys that may sign seals: all that a verifier trusts. */
export interface SealKeys {
  knows(kid: unknown): boolean;
  verify(kid: unknown, data: Uint8Array, signature: Uint8Array): boolean;
}

/** A JWK set (RFC 7517) of Ed25519 keys, as `/.well-known/portcullis-seal-keys.json` gives it. Anything else in it is an error: an ignored key would look like a forged seal. */
export function parseSealKeys(jwks: unknown): Result<SealKeys, string> {
  const parsed = publicJwks.safeParse(jwks);
  if (!parsed.success) return err("not a JWK set of Ed25519 keys");
  const keys = new Map<unknown, ReturnType<typeof createPublicKey>>();
  for (const { kty, crv, kid, x } of parsed.data.keys) {
    if (keys.has(kid)) return err("the same kid twice");
    try {
      keys.set(kid, createPublicKey({ key: { kty, crv, x }, format: "jwk" }));
    } catch {
      return err(`key ${kid} is not an Ed25519 key`);
    }
  }
  return ok({
    knows: (kid) => keys.has(kid),
    verify: (kid, data, signature) => {
      const key = keys.get(kid);
      return key !== undefined && signature.length === 64 && verify(null, data, key, signature);
    },
  });
}
