import { groupsThatCount } from "../config/entitlements.ts";
import type { FlipRequest } from "../control/contract.ts";
import { endOfSecondMs } from "../control/narrowing.ts";
import type { Deployment } from "../deployment.ts";
import type { Human } from "../identity/id-token.ts";
import type { IntrospectAnswer } from "../instance/contract.ts";
import { instanceOf, switchboardOf } from "../objects.ts";
import { ok, type Result } from "../result.ts";
import { within } from "../within.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { ID_TOKEN, verifySubject } from "./human-subject.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import type { RefreshToken } from "./refresh-token.ts";

/** Above the switchboard's own wait for what a flip does. */
const FLIP_TIMEOUT_MS = 15_000;

/** Whether a renewal brings newer word of the human. Then it is a platform's, and a platform says who it is. */
export const hasStatement = (form: Form): boolean =>
  form.get("subject_token") !== undefined || form.get("subject_token_type") !== undefined;

/**
 * A newer ID token beside a renewal: groups that it no longer lists are lost, for all that the human has running on an older
 * word. What it lists besides changes nothing: a grant that was issued does not grow.
 */
export async function takeStatement(
  form: Form,
  client: Client,
  token: RefreshToken,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<null, OAuthError>> {
  const text = form.get("subject_token");
  if (text === undefined) return failed("invalid_request", "subject_token is missing");
  if (form.get("subject_token_type") !== ID_TOKEN)
    return failed("invalid_request", "subject_token_type must be that of an id_token");
  if (token.client !== client.id)
    return failed("unauthorized_client", "the refresh token was issued to another client");
  const human = await verifySubject(text, client, deployment, nowMs);
  if (!human.ok) return human;
  return concerning({ human: human.value.id }, await narrowBy(human.value, client, token, deployment));
}

async function narrowBy(
  human: Human,
  client: Client,
  { instance }: RefreshToken,
  deployment: Deployment,
): Promise<Result<null, OAuthError>> {
  const unavailable = failed("temporarily_unavailable", "try again");
  const known: IntrospectAnswer | null = await instanceOf(deployment, instance)
    .introspect()
    .catch(() => null);
  if (known === null || known.state === "unknown") return unavailable;
  const { enrolment, groups, state } = known;
  if (enrolment === null || state === "inactive")
    return failed("invalid_grant", "the instance has ended, or was stopped");
  if (human.id !== enrolment.human) return failed("invalid_request", "subject_token: it is of another human");
  if (human.issuedAtMs <= enrolment.groupsAtMs)
    return failed("invalid_request", "subject_token: it is not newer than the one that the instance was enrolled on");
  const { entitlements } = deployment.config;
  // Also of a group that entitles to nothing as yet: a later deployment may have it count, and it is lost all the same.
  if (groups.every((group) => human.groups.includes(group))) return ok(null);
  const request: FlipRequest = {
    id: crypto.randomUUID(),
    reach: "human",
    target: { human: human.id },
    act: "narrow",
    reason: "a newer ID token does not list groups that an older one did",
    by: `platform:${client.id}`,
    email: null,
    cause: { kind: "renewal", client: client.id, instance },
    untilMs: null,
    groups: groupsThatCount(entitlements, human.groups),
    eventAtMs: endOfSecondMs(human.issuedAtMs / 1_000),
    // Asked again, the groups are lost already, and nothing is left to do.
    idempotencyKey: null,
  };
  const flipped = await within(FLIP_TIMEOUT_MS, switchboardOf(deployment).flip(request)).catch(() => undefined);
  return flipped?.flipped === true ? ok(null) : unavailable;
}
