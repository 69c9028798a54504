import type { Config } from "../config/define.ts";
import { takesIdJag } from "../config/id-jag.ts";
import { resourceOf } from "../grant/claims.ts";
import { PROOF_ALGORITHMS } from "../grant/jwk.ts";
import { TOKEN_EXCHANGE } from "./exchange.ts";
import { ID_JAG_PROFILE, JWT_BEARER } from "./jag-grant.ts";

/** RFC 8414. Every URL from the configuration, never from a request's `Host`. */
export function authorizationServerMetadata({ origin, platforms, identityProviders, grants }: Config): object {
  const clientAlgorithms = [...new Set(Object.values(platforms).flatMap((platform) => platform.algorithms))];
  const takesAssertions = Object.values(identityProviders).some(takesIdJag);
  return {
    issuer: origin,
    token_endpoint: `${origin}/oauth/token`,
    revocation_endpoint: `${origin}/oauth/revoke`,
    introspection_endpoint: `${origin}/oauth/introspect`,
    jwks_uri: `${origin}/.well-known/jwks.json`,
    grant_types_supported: [
      TOKEN_EXCHANGE,
      ...(takesAssertions ? [JWT_BEARER] : []),
      ...(grants.refreshTokens ? ["refresh_token"] : []),
    ],
    ...(takesAssertions ? { authorization_grant_profiles_supported: [ID_JAG_PROFILE] } : {}),
    response_types_supported: [],
    token_endpoint_auth_methods_supported: ["private_key_jwt", "none"],
    token_endpoint_auth_signing_alg_values_supported: clientAlgorithms,
    revocation_endpoint_auth_methods_supported: ["private_key_jwt", "none"],
    revocation_endpoint_auth_signing_alg_values_supported: clientAlgorithms,
    introspection_endpoint_auth_methods_supported: ["private_key_jwt"],
    introspection_endpoint_auth_signing_alg_values_supported: clientAlgorithms,
    dpop_signing_alg_values_supported: PROOF_ALGORITHMS,
    authorization_details_types_supported: ["http"],
  };
}

/** A name an upstream could have. Metadata is answered for any such name, so that it tells nothing of which exist. */
export const UPSTREAM_NAME = /^[a-z][a-z0-9-]{0,30}$/;

/** RFC 9728 for the gate as a whole, or for one upstream's resource URL. */
export function protectedResourceMetadata({ origin }: Config, upstream: string | undefined): object {
  return {
    resource: upstream === undefined ? origin : resourceOf(origin, upstream),
    authorization_servers: [origin],
    bearer_methods_supported: ["header"],
    authorization_details_types_supported: ["http"],
    dpop_bound_access_tokens_required: true,
    dpop_signing_alg_values_supported: PROOF_ALGORITHMS,
    jwks_uri: `${origin}/.well-known/jwks.json`,
  };
}
