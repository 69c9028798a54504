import { randomBytes } from "node:crypto";
import type { Deployment } from "../deployment.ts";
import { encodeBase64url } from "../grant/base64url.ts";
import { issueGrant, resourceOf } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import type { RenewAnswer } from "../instance/contract.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { TokenAnswer } from "./exchange.ts";
import type { Form } from "./form.ts";
import { type OAuthError, oauthError } from "./oauth-error.ts";
import { verifyRefreshToken } from "./refresh-token.ts";

/** RFC 6749 §6 by the instance itself: a public client whose key is its credential (RFC 9449 §5). The task must live. */
export async function refresh(
  form: Form,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const { config, grantKeys, version } = deployment;
  const text = form.get("refresh_token");
  if (text === undefined) return err(oauthError("invalid_request", "refresh_token is missing"));
  for (const name of ["scope", "authorization_details", "resource", "audience"])
    if (form.get(name) !== undefined) return err(oauthError("invalid_request", "a renewal keeps the scope as it is"));
  // To the instance every failure is one: it learns nothing of switches, tasks or others.
  const refused = err(oauthError("invalid_grant", "the refresh token is not valid"));
  const token = verifyRefreshToken(text, deployment, nowMs);
  if (!token.ok || token.value.instance !== proof.thumbprint) return refused;
  const named = form.get("client_id");
  if (named !== undefined && named !== token.value.client) return refused;

  const jti = encodeBase64url(randomBytes(16));
  // A grant never outlives its task.
  const expiresAtMs = Math.min(nowMs + config.grants.grantSeconds * 1000, token.value.expiresAtMs);
  const renewed: RenewAnswer = await instanceOf(deployment, proof.thumbprint)
    .renew({
      refreshDigest: token.value.digest,
      grant: jti,
      expiresAtMs,
      proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
      deployment: version,
    })
    .catch(() => ({ renewed: false, reason: "unavailable" }));
  if (!renewed.renewed)
    return renewed.reason === "unavailable" ? err(oauthError("temporarily_unavailable", "try again")) : refused;
  const { enrolment } = renewed;
  const upstreams = [...new Set(enrolment.scope.map((entry) => (entry as { readonly upstream: string }).upstream))];
  return ok({
    access_token: issueGrant(grantKeys, {
      iss: config.origin,
      sub: enrolment.subject,
      aud: upstreams.map((upstream) => resourceOf(config.origin, upstream)),
      client_id: enrolment.client,
      jti,
      iat: Math.floor(nowMs / 1000),
      exp: Math.floor(expiresAtMs / 1000),
      cnf: { jkt: enrolment.instance },
      authorization_details: enrolment.scope,
    }),
    issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
    token_type: "DPoP",
    expires_in: Math.floor(expiresAtMs / 1000) - Math.floor(nowMs / 1000),
    authorization_details: enrolment.scope,
    refresh_token: text,
  });
}
