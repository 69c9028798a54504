import type { Deployment } from "../deployment.ts";
import { type Grant, verifyGrant } from "../grant/claims.ts";
import { type Proof, parseProof, verifyProof } from "../grant/proof.ts";
import type { Enrolment, IntrospectAnswer } from "../instance/contract.ts";
import { instanceOf } from "../objects.ts";
import { ok, type Result } from "../result.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import { parentOf } from "./parent.ts";
import type { Delegation } from "./provision.ts";
import { type Asked, actorOf } from "./subject.ts";

/**
 * RFC 8693 by a child: its parent's grant, and a proof of the parent's key that is good for this child alone. What the new
 * instance is, it is by its parent: human, client, task, and no more than the parent may.
 */
export async function parentAt(asked: Asked): Promise<Result<Delegation, OAuthError>> {
  const { form, token, client, proof, deployment, nowMs } = asked;
  // Also what keeps a platform from passing off a grant of ours as its human.
  if (client !== null)
    return failed("invalid_request", "a grant is no human: a sub-agent comes without client_assertion");
  const { config, grantKeys } = deployment;
  const grant = verifyGrant(token, grantKeys, config.origin, nowMs);
  if (!grant.ok) return failed("invalid_request", `subject_token: ${grant.error}`);
  const byParent = await verifyParentsProof(form.get("subject_token_proof"), grant.value, proof, deployment, nowMs);
  if (!byParent.ok) return byParent;
  const who = { parent: grant.value.instance };
  const found = await findParent(grant.value.instance, deployment);
  if (!found.ok) return concerning(who, found);
  const parent = found.value;
  const agent = form.get("agent");
  const mayBe = Object.hasOwn(config.agents, parent.agent) ? config.agents[parent.agent]!.delegation.agents : [];
  if (agent === undefined) return concerning(who, failed("invalid_request", "agent is missing"));
  if (!mayBe.includes(agent))
    return concerning(who, failed("invalid_request", "agent: not one that the parent may provision"));
  const terms = parentOf({ parent, grant: grant.value, proof: byParent.value, form, deployment });
  if (!terms.ok) return concerning(who, terms);
  return ok({
    lineage: {
      human: parent.human,
      emailDigest: parent.emailDigest,
      ...(parent.emailUnverified === true ? { emailUnverified: true as const } : {}),
      groups: parent.groups,
      groupsAtMs: parent.groupsAtMs,
      mandate: parent.mandate,
      client: parent.client,
      agent,
      chain: [...parent.chain, actorOf(asked, parent.client, agent)],
      ancestors: [...parent.ancestors, parent.instance],
      parentScope: parent.scope,
    },
    // They stand in the first record of whom the human's own token provisioned, and can be erased there.
    humanClaims: {},
    parent: terms.value,
  });
}

/** RFC 9449 §4.3 by the parent's key, over its grant; `cnf` names the child, so that nobody else has any use for it. */
async function verifyParentsProof(
  text: string | undefined,
  grant: Grant,
  child: Proof,
  { config }: Deployment,
  nowMs: number,
): Promise<Result<Proof, OAuthError>> {
  const bad = (reason: string) => failed("invalid_request", `subject_token_proof: ${reason}`);
  if (text === undefined) return failed("invalid_request", "subject_token_proof is missing");
  const parsed = parseProof(text);
  if (!parsed.ok) return bad(parsed.error);
  if (parsed.value.key.thumbprint !== grant.instance) return bad("not by the key that the subject_token is bound to");
  const url = `${config.origin}/oauth/token`;
  const proof = await verifyProof(parsed.value, { method: "POST", url, tokenDigest: grant.digest, nowMs });
  if (!proof.ok) return bad(proof.error);
  const cnf = parsed.value.jws.payload["cnf"];
  const jkt =
    typeof cnf === "object" && cnf !== null && !Array.isArray(cnf) ? (cnf as { jkt?: unknown }).jkt : undefined;
  return jkt === child.thumbprint ? ok(proof.value) : bad("cnf.jkt is not the key of the DPoP proof");
}

/** As it is now. One that is stopped, over or unknown is one answer: a child learns nothing of switches. */
async function findParent(instance: string, deployment: Deployment): Promise<Result<Enrolment, OAuthError>> {
  const answer: IntrospectAnswer = await instanceOf(deployment, instance)
    .introspect()
    .catch(() => ({ state: "unknown", enrolment: null, groups: [] }));
  if (answer.state === "unknown") return failed("temporarily_unavailable", "try again");
  if (answer.state === "inactive" || answer.enrolment === null)
    return failed("invalid_request", "subject_token: no longer valid");
  // What the human has lost since the parent was enrolled counts, as it does for the parent itself.
  return ok({ ...answer.enrolment, groups: answer.groups });
}
