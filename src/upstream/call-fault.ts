import type { UpstreamConfig } from "../config/define.ts";
import type { Call } from "../scope/call.ts";
import type { Entry } from "../scope/entry.ts";
import { readFact } from "../scope/fact.ts";
import { isCoverable, isCovered, narrowToGrant } from "./credentials/github-narrowing.ts";

/**
 * Pure, and without a deployment: why a call can't have its upstream's credential. Policy tests ask it of a call that is
 * written down; `planCredential` says the same of a live one.
 */

type Asked = Omit<Call, "body">;

export const NOT_COVERED = "no permission in the configuration is for this operation";
export const notNarrowed = (why: string): string => `the credential can't be narrowed: ${why}`;

/** @param entries the grant's; null: what no grant could make right */
export function findCredentialFault(
  { credential }: UpstreamConfig,
  call: Asked,
  entries: readonly Entry[] | null,
): string | undefined {
  if (credential.kind === "query") return findSecondKey(credential.parameter, call);
  if (credential.kind !== "github-app") return undefined;
  if (entries === null) return isCoverable(credential, call) ? undefined : NOT_COVERED;
  const narrowing = narrowToGrant(credential, call.upstream, entries);
  if (!narrowing.ok) return notNarrowed(narrowing.error);
  return isCovered(credential, call, entries) ? undefined : NOT_COVERED;
}

/** A second key would be one that the upstream may take instead: then the agent acts as somebody else. */
export function findSecondKey(parameter: string, call: Asked): string | undefined {
  const own = readFact({ source: "query", name: parameter }, { ...call, body: { kind: "none" } }, new Map());
  return own.ok && own.value === undefined
    ? undefined
    : "a query parameter that is, or may be read as, the credential's";
}
