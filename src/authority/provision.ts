import { createHash, randomBytes } from "node:crypto";
import type { Limits } from "../config/define.ts";
import { shardOf } from "../control/shard.ts";
import type { Deployment } from "../deployment.ts";
import { encodeBase64url } from "../grant/base64url.ts";
import { fitsGrant, resourceOf } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import { ceilingsOf } from "../instance/ceilings.ts";
import type { Enrolment, EnrolRefusal, EnrolRequest, Lineage } from "../instance/contract.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import type { Entry } from "../scope/entry.ts";
import type { Form } from "./form.ts";
import { failed, type OAuthError, oauthError } from "./oauth-error.ts";
import { issueRefreshToken } from "./refresh-token.ts";
import { parseScope, parseTargets, withinCeilings } from "./requested-scope.ts";
import { parseTask } from "./task-request.ts";
import { answerWith, claimsOf, type TokenAnswer } from "./token-answer.ts";

/** On whose behalf, by whom, and under what a new instance is to work. What the form asks for comes on top, and is bounded by it. */
export interface Delegation {
  readonly lineage: Lineage;
  /** For the erasable body of the record. */
  readonly humanClaims: EnrolRequest["humanClaims"];
  /** Parameters that it states itself: the form may leave them out, and say nothing else. */
  readonly stated?: Readonly<Record<string, string>>;
  /** What bounds it besides the ceilings, where it is not about everything. */
  readonly bounds?: (asked: AskedScope) => Result<null, OAuthError>;
  /** Budgets no higher than these. */
  readonly limits?: { readonly calls: number | null; readonly bytes: number | null };
  /** False: what was said once is not good for renewals. */
  readonly mayRenew?: boolean;
  /**
   * The last thing before the enrolment: what can be used once, or so many times, is used up here. Whatever the enrolment
   * then answers, it stays so.
   */
  readonly spend?: () => Promise<Result<null, OAuthError>>;
}

/** What a form asks for, within every ceiling. */
export interface AskedScope {
  readonly scope: readonly Entry[];
  /** Resource URLs. */
  readonly audiences: readonly string[];
  readonly deadlineMs: number;
}

/**
 * What every way to a grant ends in: a task, a scope within every ceiling, an enrolment, a signature. Enrolment is the
 * commit point: a grant is signed only after it.
 */
export async function provision(
  sent: Form,
  delegation: Delegation,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const { config } = deployment;
  const { lineage, humanClaims } = delegation;
  const stated = withStated(sent, delegation.stated ?? {});
  if (!stated.ok) return stated;
  const form = stated.value;
  const task = parseTask(form, lineage, deployment, nowMs);
  if (!task.ok) return task;
  const scope = parseScope(form);
  if (!scope.ok) return scope;
  const audiences = parseTargets(form, scope.value, config.origin);
  if (!audiences.ok) return audiences;
  const within = withinCeilings(scope.value, ceilingsOf(config, lineage));
  if (!within.ok) return within;
  const asked = { scope: scope.value, audiences: audiences.value, deadlineMs: task.value.task.deadlineMs };
  const bounded = delegation.bounds?.(asked) ?? ok(null);
  if (!bounded.ok) return bounded;
  // As granted: entries of the targets alone, so that a renewal, which knows the scope, has the same audience.
  const granted = scope.value.filter((entry) => audiences.value.includes(resourceOf(config.origin, entry.upstream)));

  const subject = encodeBase64url(randomBytes(16));
  const expiresAtMs = Math.min(nowMs + config.grants.grantSeconds * 1000, task.value.task.deadlineMs);
  const jti = encodeBase64url(randomBytes(16));
  const refresh =
    config.grants.refreshTokens && delegation.mayRenew !== false
      ? issueRefreshToken(deployment, {
          instance: proof.thumbprint,
          client: lineage.client,
          expiresAtMs: task.value.task.deadlineMs,
          nowMs,
        })
      : null;
  const enrolment: Enrolment = {
    instance: proof.thumbprint,
    ...lineage,
    agentVersion: task.value.agentVersion,
    manifest: config.agents[lineage.agent]!.versions[task.value.agentVersion]!,
    rosterShard: shardOf(proof.thumbprint, config.roster.shards),
    task: task.value.task,
    grant: jti,
    subject,
    scope: granted.map((entry) => entry.source as Json),
    limits: lowered(task.value.limits, delegation.limits),
    refreshDigest: refresh === null ? null : createHash("sha256").update(refresh).digest("hex"),
  };
  const claims = claimsOf(enrolment, { origin: config.origin, jti, nowMs, expiresAtMs });
  if (!fitsGrant(claims))
    return failed("invalid_authorization_details", "authorization_details: longer than a grant can state");
  const spent = (await delegation.spend?.()) ?? ok(null);
  if (!spent.ok) return spent;
  // Dying here leaves it used up, and nobody enrolled.
  const enrolled = await instanceOf(deployment, proof.thumbprint)
    .enrol({
      enrolment,
      humanClaims,
      proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
      deployment: deployment.version,
    })
    .catch(() => ({ enrolled: false, reason: "unavailable" }) as const);
  if (!enrolled.enrolled && enrolled.reason === "narrowed") {
    // What the human has lost since the identity token counts, as it would for a token of now.
    const narrowed = withinCeilings(scope.value, ceilingsOf(config, { ...lineage, groups: enrolled.groups }));
    return narrowed.ok ? failed("temporarily_unavailable", "try again") : narrowed;
  }
  if (!enrolled.enrolled) return err(enrolRefusal(enrolled.reason));
  // Dying here leaves an enrolled instance without a grant: nobody can call as it, and its transcript ends at the deadline.
  return ok(answerWith(claims, refresh, deployment.grantKeys));
}

function withStated(form: Form, stated: Readonly<Record<string, string>>): Result<Form, OAuthError> {
  for (const [name, value] of Object.entries(stated))
    if ((form.get(name) ?? value) !== value)
      return failed("invalid_request", `${name} is not the one that was approved`);
  return ok({
    get: (name) => (Object.hasOwn(stated, name) ? stated[name] : form.get(name)),
    all: (name) => form.all(name),
  });
}

const lowered = (limits: Limits, by: Delegation["limits"]): Limits => ({
  ...limits,
  calls: Math.min(limits.calls, by?.calls ?? Number.POSITIVE_INFINITY),
  bytes: Math.min(limits.bytes, by?.bytes ?? Number.POSITIVE_INFINITY),
});

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
