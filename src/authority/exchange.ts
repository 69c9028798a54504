import type { Deployment } from "../deployment.ts";
import type { Proof } from "../grant/proof.ts";
import { ok, type Result } from "../result.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { humanAt, ID_TOKEN } from "./human-subject.ts";
import { byMandate, MANDATE } from "./mandate-subject.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import { parentAt } from "./parent-subject.ts";
import { type Delegation, provision } from "./provision.ts";
import type { Asked } from "./subject.ts";
import { ACCESS_TOKEN, type TokenAnswer } from "./token-answer.ts";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT = "urn:ietf:params:oauth:token-type:jwt";

/**
 * By the type of the subject token: on whose authority the new instance works. A null prototype: `constructor` is no type.
 * Each row has a client that has shown its key, or null where the request is a parent's, and says itself which it takes.
 */
const SUBJECTS: Readonly<Record<string, (asked: Asked) => Promise<Result<Delegation, OAuthError>>>> = Object.assign(
  Object.create(null),
  { [ID_TOKEN]: humanAt, [ACCESS_TOKEN]: parentAt, [MANDATE]: byMandate },
);

/**
 * RFC 8693: a subject token becomes a grant for one instance: the holder of the key that made the proof. Enrolment is the
 * commit point: a grant is signed only after it.
 */
export async function exchange(
  form: Form,
  client: Client | null,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const shape = checkShape(form);
  if (!shape.ok) return shape;
  const { type, token } = shape.value;
  const delegation = await SUBJECTS[type]!({ form, token, client, proof, deployment, nowMs });
  if (!delegation.ok) return delegation;
  const { human, ancestors } = delegation.value.lineage;
  const parent = ancestors.at(-1);
  const who = { human, ...(parent === undefined ? {} : { parent }) };
  return concerning(who, await provision(form, delegation.value, proof, deployment, nowMs));
}

/** The one request without a client: a parent's grant, and its key's proof, are all the authority there is. */
export const isByParent = (form: Form): boolean =>
  form.get("subject_token_type") === ACCESS_TOKEN &&
  form.get("client_assertion") === undefined &&
  form.get("client_assertion_type") === undefined;

/** What RFC 8693 §2.1 asks of the parameters, before any of them is trusted. */
function checkShape(form: Form): Result<{ readonly type: string; readonly token: string }, OAuthError> {
  const bad = (description: string) => failed("invalid_request", description);
  const token = form.get("subject_token");
  if (token === undefined) return bad("subject_token is missing");
  const type = form.get("subject_token_type");
  if (type === undefined) return bad("subject_token_type is missing");
  if (SUBJECTS[type] === undefined) return bad("subject_token_type is not one that this gate takes");
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
  return ok({ type, token });
}
