import type { Deployment } from "../deployment.ts";
import type { Proof } from "../grant/proof.ts";
import { type Human, verifyIdToken } from "../identity/id-token.ts";
import { ok, type Result } from "../result.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { byMandate, MANDATE } from "./mandate-subject.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import { type Delegation, provision } from "./provision.ts";
import { ACCESS_TOKEN, type TokenAnswer } from "./token-answer.ts";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
export const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
const JWT = "urn:ietf:params:oauth:token-type:jwt";

/**
 * RFC 8693: the human's ID token, presented by the platform whose client it was issued to, becomes a grant for one
 * instance: the holder of the key that made the proof. Enrolment is the commit point: a grant is signed only after it.
 */
export async function exchange(
  form: Form,
  client: Client,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const subject = checkShape(form);
  if (!subject.ok) return subject;
  const token = form.get("subject_token")!;
  const delegation = await subject.value({ form, token, client, proof, deployment, nowMs });
  if (!delegation.ok) return delegation;
  const { human } = delegation.value.lineage;
  return concerning({ human }, await provision(form, delegation.value, proof, deployment, nowMs));
}

/** What a subject token means: on whose behalf, and under what, the new instance works. */
type Subject = (asked: AskedByToken) => Promise<Result<Delegation, OAuthError>>;

/** A token exchange whose parameters are of the right shape, and nothing of its subject is trusted yet. */
interface AskedByToken {
  readonly form: Form;
  /** `subject_token`, as it was sent. */
  readonly token: string;
  readonly client: Client;
  /** By the key of the new instance. */
  readonly proof: Proof;
  readonly deployment: Deployment;
  readonly nowMs: number;
}

/** A row for each `subject_token_type`. Null prototype: the type `constructor` is as unknown as any. */
const SUBJECTS: { readonly [type: string]: Subject } = Object.assign(Object.create(null), {
  [ID_TOKEN]: byIdToken,
  [MANDATE]: byMandate,
});

async function byIdToken({ form, client, deployment, nowMs }: AskedByToken): Promise<Result<Delegation, OAuthError>> {
  const human = await verifySubject(form, client, deployment, nowMs);
  return human.ok ? ok(delegationBy(human.value, client)) : human;
}

/** A human who was there, by a platform. */
export const delegationBy = (human: Human, { id, platform }: Client): Delegation => ({
  lineage: {
    human: human.id,
    emailDigest: human.emailDigest,
    ...(human.isEmailUnverified ? { emailUnverified: true as const } : {}),
    groups: human.groups,
    groupsAtMs: human.issuedAtMs,
    agent: platform.agent,
    client: id,
    chain: [{ client: id, agent: platform.agent }],
    ancestors: [],
    parentScope: null,
    mandate: null,
  },
  humanClaims: human.claims,
});

/** What RFC 8693 §2.1 asks of the parameters, before any of them is trusted. */
function checkShape(form: Form): Result<Subject, OAuthError> {
  const bad = (description: string) => failed("invalid_request", description);
  if (form.get("subject_token") === undefined) return bad("subject_token is missing");
  const type = form.get("subject_token_type");
  if (type === undefined) return bad("subject_token_type is missing");
  const subject = SUBJECTS[type];
  if (subject === undefined) return bad("subject_token_type is not one that this gate takes");
  if (form.get("actor_token_type") !== undefined && form.get("actor_token") === undefined)
    return bad("actor_token_type without actor_token");
  if (form.get("actor_token") !== undefined)
    return bad(
      form.get("actor_token_type") === undefined
        ? "actor_token without its type"
        : "the actor is the instance, by its DPoP key",
    );
  const requested = form.get("requested_token_type");
  if (requested !== undefined && requested !== ACCESS_TOKEN && requested !== JWT)
    return bad("requested_token_type must be that of an access_token");
  if (form.get("scope") !== undefined) return failed("invalid_scope", "scope is stated in authorization_details");
  return ok(subject);
}

/** The ID token of a human, issued to this platform. */
export async function verifySubject(
  form: Form,
  client: Client,
  { config }: Deployment,
  nowMs: number,
): Promise<Result<Human, OAuthError>> {
  const provider = config.identityProviders[client.platform.identityProvider]!;
  const human = await verifyIdToken(form.get("subject_token")!, provider, client.platform.subjectAudience, nowMs);
  if (human.ok) return human;
  // RFC 8693 §2.2.2: a subject token that is no good is invalid_request, not invalid_grant. One that nobody could look at is neither.
  const code = human.error.kind === "unavailable" ? "temporarily_unavailable" : "invalid_request";
  return failed(code, `subject_token: ${human.error.reason}`);
}
