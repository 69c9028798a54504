import type { Deployment } from "../deployment.ts";
import { parseGrant, verifyGrant } from "../grant/claims.ts";
import { verifyRefreshToken } from "./refresh-token.ts";

/** A token of ours that somebody asks about or hands back. */
export interface HeldToken {
  readonly kind: "access" | "refresh";
  readonly instance: string;
  readonly client: string;
  /** Claims of a grant; null for a refresh token. */
  readonly claims: {
    readonly jti: string;
    readonly sub: string;
    readonly aud: unknown;
    readonly iat: number;
    readonly exp: number;
  } | null;
}

/** `undefined`: not a token of ours, or expired. `token_type_hint` is no more than a hint (RFC 7009 §2.1): both kinds are tried. */
export function readHeldToken(token: string, deployment: Deployment, nowMs: number): HeldToken | undefined {
  const refresh = verifyRefreshToken(token, deployment, nowMs);
  if (refresh.ok)
    return { kind: "refresh", instance: refresh.value.instance, client: refresh.value.client, claims: null };
  const grant = verifyGrant(token, deployment.grantKeys, deployment.config.origin, nowMs);
  const jws = parseGrant(token);
  if (!grant.ok || !jws.ok) return undefined;
  const { sub, aud, iat, exp, jti, client_id } = jws.value.payload;
  return {
    kind: "access",
    instance: grant.value.instance,
    client: String(client_id),
    claims: { jti: String(jti), sub: String(sub), aud, iat: Number(iat), exp: Number(exp) },
  };
}
