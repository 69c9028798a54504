import type { Deployment } from "../deployment.ts";
import { type Human, verifyIdToken } from "../identity/id-token.ts";
import { ok, type Result } from "../result.ts";
import type { Client } from "./client.ts";
import { BARRED_BY_MAY_ACT, isBarredByMayAct } from "./may-act.ts";
import { failed, type OAuthError } from "./oauth-error.ts";
import type { Delegation } from "./provision.ts";
import { type Asked, actorOf } from "./subject.ts";

export const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";

/** The human's ID token, presented by the platform whose client it was issued to. */
export async function humanAt(asked: Asked): Promise<Result<Delegation, OAuthError>> {
  const { token, client, deployment, nowMs } = asked;
  if (client === null) return failed("invalid_client", "no client_assertion");
  const human = await verifySubject(token, client, deployment, nowMs);
  return human.ok ? ok(delegationBy(human.value, client, asked)) : human;
}

/** The ID token of a human, issued to this platform. */
export async function verifySubject(
  token: string,
  { platform }: Client,
  { config }: Deployment,
  nowMs: number,
): Promise<Result<Human, OAuthError>> {
  const provider = config.identityProviders[platform.identityProvider]!;
  const human = await verifyIdToken(token, provider, platform.subjectAudience, nowMs);
  if (human.ok)
    return isBarredByMayAct(human.value.claims, provider.issuer, platform.subjectAudience)
      ? failed("invalid_request", `subject_token: ${BARRED_BY_MAY_ACT}`)
      : human;
  // RFC 8693 §2.2.2: a subject token that is no good is invalid_request, not invalid_grant. One that nobody could look at is neither.
  const code = human.error.kind === "unavailable" ? "temporarily_unavailable" : "invalid_request";
  return failed(code, `subject_token: ${human.error.reason}`);
}

/** A human who was there, by a platform. */
export const delegationBy = (
  human: Human,
  { id, platform }: Client,
  asked: Pick<Asked, "form" | "proof">,
): Delegation => ({
  lineage: {
    human: human.id,
    emailDigest: human.emailDigest,
    ...(human.isEmailUnverified ? { emailUnverified: true as const } : {}),
    groups: human.groups,
    groupsAtMs: human.groupsAtMs,
    agent: platform.agent,
    client: id,
    chain: [actorOf(asked, id, platform.agent)],
    ancestors: [],
    parentScope: null,
    mandate: null,
  },
  humanClaims: human.claims,
});
