import { type Denial, unauthenticated } from "../denial.ts";
import { GRANT_MAX_CHARS, type Grant, verifyGrant } from "../grant/claims.ts";
import type { KeyRing } from "../grant/keys.ts";
import { type Proof, parseProof, verifyProof } from "../grant/proof.ts";
import { err, ok, type Result } from "../result.ts";

export interface Authenticated {
  readonly grant: Grant;
  readonly proof: Proof;
}

export interface AuthenticateContext {
  readonly origin: string;
  readonly grantKeys: KeyRing;
  /** The path as it was sent, with its encoding. */
  readonly rawPath: string;
  readonly nowMs: number;
}

const SCHEME = /^([A-Za-z]+) +(.*)$/;

/**
 * Grant and proof (RFC 9449 §7.1), without any state: nothing of it depends on what exists behind the path. The order is the
 * security argument: shapes, then the grant's signature and claims, then whose key it is bound to, then the proof's
 * signature and claims. Replay, switches and the end of the task are the instance's to refuse.
 */
export async function authenticate(request: Request, ctx: AuthenticateContext): Promise<Result<Authenticated, Denial>> {
  const authorization = request.headers.get("authorization");
  if (authorization === null) return err(unauthenticated("none", "no Authorization header"));
  const [, scheme, token] = SCHEME.exec(authorization) ?? [];
  if (scheme === undefined || token === undefined)
    return err(unauthenticated("invalid_request", "Authorization is not a scheme and a token"));
  // A bound token under Bearer must be refused (RFC 9449 §7.2), and nothing here is unbound.
  if (scheme.toLowerCase() !== "dpop") return err(unauthenticated("invalid_token", `scheme ${scheme.slice(0, 16)}`));
  if (token.length > GRANT_MAX_CHARS) return err(unauthenticated("invalid_token", "the token is too long"));

  // Two DPoP headers arrive joined by a comma, which no compact JWS holds (RFC 9449 §4.3 check 1).
  const header = request.headers.get("dpop");
  if (header === null) return err(unauthenticated("invalid_dpop_proof", "no DPoP header"));
  const unverified = parseProof(header);
  if (!unverified.ok) return err(unauthenticated("invalid_dpop_proof", unverified.error));

  const grant = verifyGrant(token, ctx.grantKeys, ctx.origin, ctx.nowMs);
  if (!grant.ok) return err(unauthenticated("invalid_token", grant.error));
  if (unverified.value.key.thumbprint !== grant.value.instance)
    return err(unauthenticated("invalid_token", "the grant is bound to another key"));

  const proof = await verifyProof(unverified.value, {
    method: request.method,
    url: ctx.origin + ctx.rawPath,
    tokenDigest: grant.value.digest,
    nowMs: ctx.nowMs,
  });
  if (!proof.ok) return err(unauthenticated("invalid_dpop_proof", proof.error));
  return ok({ grant: grant.value, proof: proof.value });
}
