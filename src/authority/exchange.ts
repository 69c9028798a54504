import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import { shardOf } from "../control/shard.ts";
import type { Deployment } from "../deployment.ts";
import { encodeBase64url } from "../grant/base64url.ts";
import { fitsGrant, resourceOf } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import { type Human, verifyIdToken } from "../identity/id-token.ts";
import type { Enrolment, EnrolRefusal } from "../instance/contract.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { coveredBy } from "../scope/decide.ts";
import { type Entry, parseAuthorizationDetails } from "../scope/entry.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { concerning, type OAuthError, oauthError } from "./oauth-error.ts";
import { issueRefreshToken } from "./refresh-token.ts";
import { ACCESS_TOKEN, answerWith, claimsOf, type TokenAnswer } from "./token-answer.ts";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
const JWT = "urn:ietf:params:oauth:token-type:jwt";

const fail = (code: OAuthError["code"], description: string) => err(oauthError(code, description));

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
  const shape = checkShape(form);
  if (!shape.ok) return shape;
  const human = await verifySubject(form, client, deployment, nowMs);
  if (!human.ok) return human;
  return concerning({ human: human.value.id }, await provision(form, client, proof, human.value, deployment, nowMs));
}

async function provision(
  form: Form,
  client: Client,
  proof: Proof,
  human: Human,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const { config } = deployment;
  const task = parseTask(form, client, deployment, nowMs);
  if (!task.ok) return task;
  const scope = parseScope(form);
  if (!scope.ok) return scope;
  const audiences = parseTargets(form, scope.value, config.origin);
  if (!audiences.ok) return audiences;
  const within = withinCeilings(scope.value, human, client, deployment);
  if (!within.ok) return within;
  // As granted: entries of the targets alone, so that a renewal, which knows the scope, has the same audience.
  const granted = scope.value.filter((entry) => audiences.value.includes(resourceOf(config.origin, entry.upstream)));

  const subject = encodeBase64url(randomBytes(16));
  const expiresAtMs = Math.min(nowMs + config.grants.grantSeconds * 1000, task.value.task.deadlineMs);
  const jti = encodeBase64url(randomBytes(16));
  const refresh = config.grants.refreshTokens
    ? issueRefreshToken(deployment, {
        instance: proof.thumbprint,
        client: client.id,
        expiresAtMs: task.value.task.deadlineMs,
        nowMs,
      })
    : null;
  const enrolment: Enrolment = {
    instance: proof.thumbprint,
    human: human.id,
    emailDigest: human.emailDigest,
    agent: client.platform.agent,
    agentVersion: task.value.agentVersion,
    manifest: config.agents[client.platform.agent]!.versions[task.value.agentVersion]!,
    client: client.id,
    chain: [{ client: client.id, agent: client.platform.agent }],
    ancestors: [],
    rosterShard: shardOf(proof.thumbprint, config.roster.shards),
    task: task.value.task,
    grant: jti,
    subject,
    scope: granted.map((entry) => entry.source as Json),
    groups: human.groups,
    limits: task.value.limits,
    refreshDigest: refresh === null ? null : createHash("sha256").update(refresh).digest("hex"),
  };
  const claims = claimsOf(enrolment, { origin: config.origin, jti, nowMs, expiresAtMs });
  if (!fitsGrant(claims))
    return fail("invalid_authorization_details", "authorization_details: longer than a grant can state");
  const enrolled = await instanceOf(deployment, proof.thumbprint)
    .enrol({
      enrolment,
      humanClaims: human.claims,
      proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
      deployment: deployment.version,
    })
    .catch(() => ({ enrolled: false, reason: "unavailable" }) as const);
  if (!enrolled.enrolled) return err(enrolRefusal(enrolled.reason));
  // Dying here leaves an enrolled instance without a grant: nobody can call as it, and its transcript ends at the deadline.
  return ok(answerWith(claims, refresh, deployment.grantKeys));
}

/** What RFC 8693 §2.1 asks of the parameters, before any of them is trusted. */
function checkShape(form: Form): Result<null, OAuthError> {
  const bad = (description: string) => fail("invalid_request", description);
  if (form.get("subject_token") === undefined) return bad("subject_token is missing");
  const type = form.get("subject_token_type");
  if (type === undefined) return bad("subject_token_type is missing");
  if (type !== ID_TOKEN) return bad("subject_token_type must be that of an id_token");
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
  if (form.get("scope") !== undefined) return fail("invalid_scope", "scope is stated in authorization_details");
  return ok(null);
}

async function verifySubject(
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
  return fail(code, `subject_token: ${human.error.reason}`);
}

const taskLimits = z.strictObject({
  calls: z.number().int().positive().optional(),
  bytes: z.number().int().positive().optional(),
});

type TaskRequest = Pick<Enrolment, "task" | "agentVersion" | "limits">;

/** The parameters of the task: `task`, `purpose`, `deadline` (NumericDate), `agent_version`, and optionally lower `task_limits`. */
function parseTask(form: Form, client: Client, { config }: Deployment, nowMs: number): Result<TaskRequest, OAuthError> {
  const bad = (description: string) => fail("invalid_request", description);
  const id = form.get("task");
  if (id === undefined || !/^[A-Za-z0-9_-]{1,40}$/.test(id)) return bad("task must be 1 to 40 letters, digits, - or _");
  const purpose = form.get("purpose");
  if (purpose === undefined || purpose.trim() === "" || purpose.length > 1_000)
    return bad("purpose must be 1 to 1000 characters");
  const deadline = form.get("deadline") ?? "";
  if (!/^\d{1,11}$/.test(deadline)) return bad("deadline must be a NumericDate in whole seconds");
  const deadlineMs = Number(deadline) * 1000;
  if (deadlineMs <= nowMs) return bad("deadline is in the past");
  if (deadlineMs > nowMs + config.grants.taskSeconds * 1000) return bad("deadline is later than this gate allows");
  const agentVersion = form.get("agent_version") ?? "";
  const agent = config.agents[client.platform.agent]!;
  if (!Object.hasOwn(agent.versions, agentVersion)) return bad("agent_version is not registered for this agent");
  const asked = form.get("task_limits");
  const json = asked === undefined ? ok({}) : parseStrictJson(asked);
  const lower = json.ok ? taskLimits.safeParse(json.value) : undefined;
  if (lower?.success !== true) return bad("task_limits must be an object with calls or bytes");
  return ok({
    // Namespaced by the platform that names it; client names hold no underscore.
    task: { id: `${client.id}_${id}`, purpose, deadlineMs },
    agentVersion,
    limits: {
      ...agent.limits,
      calls: Math.min(agent.limits.calls, lower.data.calls ?? Number.POSITIVE_INFINITY),
      bytes: Math.min(agent.limits.bytes, lower.data.bytes ?? Number.POSITIVE_INFINITY),
    },
  });
}

function parseScope(form: Form): Result<readonly Entry[], OAuthError> {
  const text = form.get("authorization_details");
  if (text === undefined) return fail("invalid_request", "authorization_details is missing");
  const entries = parseAuthorizationDetails(text);
  return entries.ok
    ? entries
    : fail("invalid_authorization_details", `${entries.error.path}: ${entries.error.message}`);
}

/** RFC 8707: resource URLs (or upstream names as `audience`) may narrow `aud`; each must be one that the scope speaks of. */
function parseTargets(form: Form, scope: readonly Entry[], origin: string): Result<readonly string[], OAuthError> {
  const upstreams = [...new Set(scope.map((entry) => entry.upstream))];
  const resources = upstreams.map((upstream) => resourceOf(origin, upstream));
  const asked = [
    ...form.all("resource"),
    ...form.all("audience").map((name) => (upstreams.includes(name) ? resourceOf(origin, name) : name)),
  ];
  if (asked.some((resource) => !resources.includes(resource)))
    return fail("invalid_target", "a resource is not one that authorization_details speaks of");
  return ok(asked.length === 0 ? resources : [...new Set(asked)]);
}

/** Every entry within every ceiling, each operation by one entry of that ceiling. Says which entry and which layer. */
function withinCeilings(
  scope: readonly Entry[],
  human: Human,
  client: Client,
  { config }: Deployment,
): Result<null, OAuthError> {
  const entitled = human.groups.flatMap((group) =>
    Object.hasOwn(config.entitlements.groups, group) ? config.entitlements.groups[group]! : [],
  );
  const layers = [
    { name: "the human's entitlement", entries: entitled },
    { name: "the agent's ceiling", entries: config.agents[client.platform.agent]!.ceiling },
    { name: "the organisation's boundaries", entries: config.boundaries },
  ];
  for (const [i, entry] of scope.entries())
    for (const layer of layers)
      if (!coveredBy(layer.entries, entry))
        return fail("invalid_authorization_details", `authorization_details[${i}] exceeds ${layer.name}`);
  return ok(null);
}

function enrolRefusal(reason: EnrolRefusal): OAuthError {
  switch (reason) {
    case "key-enrolled":
      return oauthError("invalid_request", "this key is enrolled already: every instance needs a key of its own");
    case "replay":
      return oauthError("invalid_dpop_proof", "the proof was used before");
    case "switched":
      // To a platform, which is no agent. Kill or pause: that is the admins' to tell.
      return oauthError("invalid_request", "closed by a switch");
    case "unavailable":
      return oauthError("temporarily_unavailable", "try again");
  }
}
