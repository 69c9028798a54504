import type { UpstreamConfig } from "../config/define.ts";
import { delegationAudience } from "../config/delegation.ts";
import { type DelegationSigner, newDelegationId, signDelegation, txnOf } from "../delegation/signed.ts";
import type { DelegationMark } from "../instance/contract.ts";
import { Needles } from "../upstream/needles.ts";
import type { Admitted } from "./admit.ts";
import type { Guarded } from "./echo-scan.ts";

/** The signed delegation of one call, and the header that it goes out in. */
export interface SignedDelegation {
  readonly header: string;
  readonly token: string;
}

/** What the record of the call is to say, before there is a token; undefined where the upstream wants none. */
export const delegationMark = (upstream: UpstreamConfig): DelegationMark | undefined =>
  upstream.delegation === undefined ? undefined : { jti: newDelegationId(), aud: delegationAudience(upstream) };

/** One signature, where the upstream wants it. Throws where the instance has not said for whom it acts: without it nothing may leave. */
export function delegationFor(
  { delegation: facts, seq }: Admitted,
  upstream: UpstreamConfig,
  mark: DelegationMark | undefined,
  deployment: DelegationSigner,
): SignedDelegation | null {
  if (upstream.delegation === undefined) return null;
  if (facts === null || mark === undefined) throw new Error("an admission without the delegation that was asked for");
  const of = { audience: mark.aud, txn: txnOf(facts.instance, seq), nowMs: Date.now(), jti: mark.jti };
  return { header: upstream.delegation.header, token: signDelegation(deployment, facts, of) };
}

/** By what it is known in a body: as it is, which is how URLs, JSON and HTML write it as well. Made for one call, so no more than that. */
export const guardedDelegation = ({ token }: SignedDelegation): Guarded => ({
  what: "signed delegation",
  needles: new Needles([token]),
});

/**
 * An answer's headers as they may be shown: an upstream that gives the token back, in its own header or as part of
 * another, says it neither to the agent nor to the record.
 */
export function withoutDelegation(received: Headers, delegation: SignedDelegation | null): Headers {
  if (delegation === null) return received;
  const own = delegation.header.toLowerCase();
  const shown = new Headers();
  for (const [name, value] of received)
    if (name !== own && !value.includes(delegation.token)) shown.append(name, value);
  return shown;
}
