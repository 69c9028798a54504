import type { GrantTokens, HeldGrant } from "./held-grant.ts";
import { createProof, type InstanceKey } from "./instance-key.ts";

/** What a parent hands to one child: of no use to anyone without that child's key. */
export interface Delegated {
  readonly subject_token: string;
  /** Good for 120 s, once. */
  readonly subject_token_proof: string;
}

/** The parent's side. `child`: the thumbprint of the child's key, as the child says it (`thumbprintOf`). */
export const delegate = (parent: HeldGrant, child: string): Promise<Delegated> => parent.delegate(child);

/**
 * The parent's side: ends one child, and all below it (RFC 7009). What it has not spent is the parent's again as soon as its last call is
 * over. False: the gate did not say so; ask again.
 */
export const endChild = (parent: HeldGrant, child: string): Promise<boolean> => parent.endChild(child);

/** What the child is to be. The scope, the life and the limits must fit into the parent's. */
export interface SubAgentRequest {
  /** One that the parent's agent may provision (`delegation.agents` of the configuration). */
  readonly agent: string;
  readonly agentVersion: string;
  readonly purpose: string;
  /** RFC 9396. */
  readonly authorizationDetails: readonly object[];
  /** Seconds since 1970; without: as long as the parent's task. */
  readonly deadline?: number;
  /** Without: an equal share of what the parent has left. */
  readonly taskLimits?: object;
}

/** The gate's word on it (RFC 6749 §5.2). */
export class SubAgentRefused extends Error {
  override readonly name = "SubAgentRefused";
  readonly error: string;
  constructor(error: string, description: string) {
    super(`${error}: ${description}`);
    this.error = error;
  }
}

export interface SubAgentOptions {
  /** The gate's origin. */
  readonly gate: string;
  /** The child's own: a new one for each sub-agent, and for each attempt. */
  readonly key: InstanceKey;
  readonly delegated: Delegated;
  readonly request: SubAgentRequest;
  /** For tests and unusual runtimes. */
  readonly fetch?: typeof globalThis.fetch;
}

/** The child's side: its grant, for `createAgentFetch` or `createHeldGrant`. Throws `SubAgentRefused` where the gate gives none. */
export async function requestSubAgentGrant(options: SubAgentOptions): Promise<GrantTokens> {
  const { key, delegated, request, fetch: send = globalThis.fetch } = options;
  const url = `${new URL(options.gate).origin}/oauth/token`;
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    subject_token: delegated.subject_token,
    subject_token_proof: delegated.subject_token_proof,
    agent: request.agent,
    agent_version: request.agentVersion,
    purpose: request.purpose,
    authorization_details: JSON.stringify(request.authorizationDetails),
  });
  if (request.deadline !== undefined) form.set("deadline", String(request.deadline));
  if (request.taskLimits !== undefined) form.set("task_limits", JSON.stringify(request.taskLimits));
  const answer = await send(url, {
    method: "POST",
    body: form,
    headers: { DPoP: await createProof(key, "POST", url) },
    redirect: "manual",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const said = (await answer.json().catch(() => ({}))) as Partial<GrantTokens> &
    Partial<Record<"error" | "error_description", string>>;
  if (!answer.ok || typeof said.access_token !== "string")
    throw new SubAgentRefused(said.error ?? String(answer.status), said.error_description ?? "no grant");
  return said as GrantTokens;
}

const TIMEOUT_MS = 30_000;
