import { type GrantClaims, issueGrant, resourceOf } from "../grant/claims.ts";
import type { KeyRing } from "../grant/keys.ts";
import type { Enrolment } from "../instance/contract.ts";
import type { Json } from "../scope/call.ts";

export const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";

/** RFC 8693 §2.2.1 with RFC 9396 §7. */
export interface TokenAnswer {
  readonly access_token: string;
  readonly issued_token_type: typeof ACCESS_TOKEN;
  readonly token_type: "DPoP";
  readonly expires_in: number;
  readonly authorization_details: readonly Json[];
  readonly refresh_token?: string;
}

/** What a grant of this instance states: the same at every renewal, but for its id and its time. */
export function claimsOf(
  { subject, client, instance, scope }: Enrolment,
  grant: { readonly origin: string; readonly jti: string; readonly nowMs: number; readonly expiresAtMs: number },
): GrantClaims {
  const upstreams = [...new Set(scope.map((entry) => (entry as { readonly upstream: string }).upstream))];
  return {
    iss: grant.origin,
    sub: subject,
    aud: upstreams.map((upstream) => resourceOf(grant.origin, upstream)),
    client_id: client,
    jti: grant.jti,
    iat: Math.floor(grant.nowMs / 1000),
    exp: Math.floor(grant.expiresAtMs / 1000),
    cnf: { jkt: instance },
    authorization_details: scope,
  };
}

export const answerWith = (claims: GrantClaims, refreshToken: string | null, grantKeys: KeyRing): TokenAnswer => ({
  access_token: issueGrant(grantKeys, claims),
  issued_token_type: ACCESS_TOKEN,
  token_type: "DPoP",
  expires_in: claims.exp - claims.iat,
  authorization_details: claims.authorization_details,
  ...(refreshToken === null ? {} : { refresh_token: refreshToken }),
});
