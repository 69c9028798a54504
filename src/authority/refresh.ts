import { randomBytes } from "node:crypto";
import type { Sighting } from "../control/second-copy.ts";
import type { Deployment } from "../deployment.ts";
import { encodeBase64url } from "../grant/base64url.ts";
import type { Proof } from "../grant/proof.ts";
import type { RenewAnswer } from "../instance/contract.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { takeStatement } from "./newer-statement.ts";
import { type OAuthError, oauthError } from "./oauth-error.ts";
import { verifyRefreshToken } from "./refresh-token.ts";
import { answerWith, claimsOf, type TokenAnswer } from "./token-answer.ts";

/**
 * RFC 6749 §6 by the instance itself: a public client whose key is its credential (RFC 9449 §5). The task must live.
 * @param client the platform that provisioned, where it brings newer word of the human
 */
export async function refresh(
  form: Form,
  proof: Proof,
  client: Client | null,
  sighting: Sighting | null,
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
  // As the configuration is now: a token that was given out under another one is no good for anything but to be handed back.
  if (!config.grants.refreshTokens)
    return client === null
      ? refused
      : err(oauthError("invalid_grant", "nothing is renewed: grants.refreshTokens is off"));
  const named = form.get("client_id");
  if (named !== undefined && named !== token.value.client) return refused;
  // Before anything is renewed: what was lost is lost by then.
  if (client !== null) {
    const taken = await takeStatement(form, client, token.value, deployment, nowMs);
    if (!taken.ok) return taken;
  }

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
      sighting,
    })
    .catch(() => ({ renewed: false, reason: "unavailable" }));
  if (!renewed.renewed)
    return renewed.reason === "unavailable" ? err(oauthError("temporarily_unavailable", "try again")) : refused;
  const claims = claimsOf(renewed.enrolment, { origin: config.origin, jti, nowMs, expiresAtMs });
  return ok(answerWith(claims, text, grantKeys));
}
