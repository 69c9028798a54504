import { verifyIdToken } from "../identity/id-token.ts";
import { ok, type Result } from "../result.ts";
import { failed, type OAuthError } from "./oauth-error.ts";
import type { Delegation } from "./provision.ts";
import { type Asked, actorOf } from "./subject.ts";

/** The human's ID token, presented by the platform whose client it was issued to. */
export async function humanAt(asked: Asked): Promise<Result<Delegation, OAuthError>> {
  const { token, client, deployment, nowMs } = asked;
  if (client === null) return failed("invalid_client", "no client_assertion");
  const { id, platform } = client;
  const provider = deployment.config.identityProviders[platform.identityProvider]!;
  const human = await verifyIdToken(token, provider, platform.subjectAudience, nowMs);
  if (!human.ok) {
    // RFC 8693 §2.2.2: a subject token that is no good is invalid_request, not invalid_grant. One that nobody could look at is neither.
    const code = human.error.kind === "unavailable" ? "temporarily_unavailable" : "invalid_request";
    return failed(code, `subject_token: ${human.error.reason}`);
  }
  return ok({
    lineage: {
      human: human.value.id,
      emailDigest: human.value.emailDigest,
      groups: human.value.groups,
      groupsAtMs: human.value.issuedAtMs,
      agent: platform.agent,
      client: id,
      chain: [actorOf(asked, id, platform.agent)],
      ancestors: [],
      parentScope: null,
      mandate: null,
    },
    humanClaims: human.value.claims,
  });
}
