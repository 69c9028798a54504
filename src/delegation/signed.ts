import { randomBytes } from "node:crypto";
import { encodeBase64url } from "../grant/base64url.ts";
import type { KeyRing } from "../grant/keys.ts";
import type { Actor, DelegationFacts } from "../instance/contract.ts";
import type { Json } from "../scope/call.ts";

/** Pure, but for the signature: what an upstream is told of who acts, for whom, and by whose word. */

export const DELEGATION_TYPE = "portcullis-delegation+jwt";
/** An upstream looks at it as the call comes in; nobody keeps it. */
export const DELEGATION_SECONDS = 60;

export interface DelegationOf {
  readonly audience: string;
  /** Of a call: the instance's id and its `seq`. Left out where it is for more than one call. */
  readonly txn?: string;
  readonly nowMs: number;
  /** Where it is on record already; else a new one. */
  readonly jti?: string;
}

/** As on record, and what the gate finds it by. */
export const newDelegationId = (): string => encodeBase64url(randomBytes(16));

export const txnOf = (instance: string, seq: number): string => `${instance}:${seq}`;

type Act = { readonly [claim: string]: Json };

/**
 * RFC 8693 §4.1: the current actor outermost, each inside it the instance that delegated to it; a platform is the
 * `client_id` by which the first of them came. Only the outermost is for decisions about access.
 */
function actOf({ instance, agent, agentVersion, client, chain }: DelegationFacts): Act {
  const earlier = chain.reduce<Act | null>((act, actor) => {
    const above = earlierActor(actor);
    return above === null || above["sub"] === instance ? act : { ...above, ...(act === null ? {} : { act }) };
  }, null);
  return {
    sub: instance,
    agent,
    agent_version: agentVersion,
    client_id: client,
    ...(earlier === null ? {} : { act: earlier }),
  };
}

/** Null: no instance, so nobody who acted here. */
function earlierActor({ client, agent, ...rest }: Actor): Act | null {
  const { instance, agentVersion } = rest as { readonly instance?: string; readonly agentVersion?: string };
  if (instance === undefined) return null;
  return {
    sub: instance,
    agent,
    ...(agentVersion === undefined ? {} : { agent_version: agentVersion }),
    client_id: client,
  };
}

export const delegationClaims = (
  issuer: string,
  facts: DelegationFacts,
  { audience, txn, nowMs, jti = newDelegationId() }: DelegationOf,
) => {
  const iat = Math.floor(nowMs / 1000);
  return {
    iss: issuer,
    aud: audience,
    sub: facts.human,
    act: actOf(facts),
    task: facts.task,
    ...(facts.mandate === null ? {} : { mandate: facts.mandate }),
    ...(txn === undefined ? {} : { txn }),
    jti,
    iat,
    exp: iat + DELEGATION_SECONDS,
  };
};

/** What of a deployment signs. */
export interface DelegationSigner {
  readonly grantKeys: KeyRing;
  readonly config: { readonly origin: string };
}

/**
 * Signed with the keys of grants, whose public halves are at `/.well-known/jwks.json`. Its `typ` keeps it apart from
 * all else that they sign: it is no grant, and no token of a human.
 */
export const signDelegation = (
  { grantKeys, config }: DelegationSigner,
  facts: DelegationFacts,
  of: DelegationOf,
): string => grantKeys.signCompact(DELEGATION_TYPE, delegationClaims(config.origin, facts, of));
