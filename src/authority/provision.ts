import { createHash, randomBytes } from "node:crypto";
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
import type { Form } from "./form.ts";
import { failed, type OAuthError, oauthError } from "./oauth-error.ts";
import type { Parent } from "./parent.ts";
import { issueRefreshToken } from "./refresh-token.ts";
import { parseScope, parseTargets, withinCeilings } from "./requested-scope.ts";
import { parseTask } from "./task-request.ts";
import { answerWith, claimsOf, type TokenAnswer } from "./token-answer.ts";

/** On whose behalf, by whom, and under what a new instance is to work. What the form asks for comes on top, and is bounded by it. */
export interface Delegation {
  readonly lineage: Lineage;
  /** For the erasable body of the record. */
  readonly humanClaims: EnrolRequest["humanClaims"];
  /** Where an instance provisions its sub-agent. */
  readonly parent?: Parent;
}

/**
 * What every way to a grant ends in: a task, a scope within every ceiling, an enrolment, a signature. Enrolment is the
 * commit point: a grant is signed only after it.
 */
export async function provision(
  form: Form,
  { lineage, humanClaims, parent }: Delegation,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const { config } = deployment;
  const task = parseTask(parent?.form ?? form, lineage, deployment, nowMs);
  if (!task.ok) return task;
  const scope = parseScope(form);
  if (!scope.ok) return scope;
  const audiences = parseTargets(form, scope.value, config.origin);
  if (!audiences.ok) return audiences;
  const within = withinCeilings(scope.value, ceilingsOf(config, lineage));
  if (!within.ok) return within;
  // As granted: entries of the targets alone, so that a renewal, which knows the scope, has the same audience.
  const granted = scope.value.filter((entry) => audiences.value.includes(resourceOf(config.origin, entry.upstream)));

  const subject = encodeBase64url(randomBytes(16));
  const expiresAtMs = Math.min(nowMs + config.grants.grantSeconds * 1000, task.value.task.deadlineMs);
  const jti = encodeBase64url(randomBytes(16));
  const refresh = config.grants.refreshTokens
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
    limits: task.value.limits,
    refreshDigest: refresh === null ? null : createHash("sha256").update(refresh).digest("hex"),
  };
  const claims = claimsOf(enrolment, { origin: config.origin, jti, nowMs, expiresAtMs });
  if (!fitsGrant(claims))
    return failed("invalid_authorization_details", "authorization_details: longer than a grant can state");
  const reserved = await parent?.reserve(enrolment);
  if (reserved?.ok === false) return reserved;
  const enrolled = await instanceOf(deployment, proof.thumbprint)
    .enrol({
      enrolment: { ...enrolment, limits: reserved?.value.limits ?? enrolment.limits },
      humanClaims,
      proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
      deployment: deployment.version,
      ...(reserved === undefined ? {} : { tokens: reserved.value.tokens }),
    })
    .catch(() => ({ enrolled: false, reason: "unavailable" }) as const);
  if (parent !== undefined) {
    const standing = await parent.settle(enrolment, enrolled);
    if (!standing.ok) return standing;
  }
  if (!enrolled.enrolled) return err(enrolRefusal(enrolled.reason));
  // Dying here leaves an enrolled instance without a grant: nobody can call as it, and its transcript ends at the deadline.
  return ok(answerWith(claims, refresh, deployment.grantKeys));
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
