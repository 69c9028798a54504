import type { Deployment } from "../deployment.ts";
import type { DelegationFacts } from "../instance/contract.ts";

const LIFE_SECONDS = 60;

/** A short-lived JWT by which the gate says who acts, for whom, on which task. Its own `typ`: it is no grant (RFC 8725 §3.11). */
export function signDelegation(
  { config, grantKeys }: Deployment,
  facts: DelegationFacts,
  { audience }: { readonly audience: string },
): string {
  const nowSeconds = Math.floor(Date.now() / 1000);
  return grantKeys.signCompact("delegation+jwt", {
    iss: config.origin,
    sub: facts.human,
    aud: audience,
    jti: crypto.randomUUID(),
    iat: nowSeconds,
    exp: nowSeconds + LIFE_SECONDS,
    act: { sub: facts.instance },
    agent: facts.agent,
    agent_version: facts.agentVersion,
    instance: facts.instance,
    task: facts.task,
    client_id: facts.client,
    chain: facts.chain,
  });
}
