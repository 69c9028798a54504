import type { BoundaryEntry } from "../config/layers.ts";
import type { Call } from "../scope/call.ts";
import { findMeant } from "../scope/readings.ts";
import type { Approval, DecideRequest } from "./contract.ts";

/** Pure. Which calls wait for a person, and which person may decide. */

/** What all entries that hold a call back come to. Of two that differ the stricter counts: a wider one never loosens it. */
export interface Demand {
  /** Where they stand: `boundaries[3]`. */
  readonly at: readonly string[];
  readonly waitMs: number;
  readonly validMs: number;
  readonly expireMs: number;
  readonly notDelegator: boolean;
  /** The approver is in one group of each. */
  readonly groups: readonly (readonly string[])[];
}

type Asking = Pick<BoundaryEntry, "upstream" | "operations" | "where" | "type" | "source"> & {
  readonly at: string;
  readonly approval: NonNullable<BoundaryEntry["approval"]>;
};

/** Fixed for a configuration. Where there are none, no call is asked anything. */
export const askingEntries = (boundaries: readonly BoundaryEntry[]): readonly Asking[] =>
  boundaries.flatMap((entry, i) =>
    entry.approval === null ? [] : [{ ...entry, approval: entry.approval, at: `boundaries[${i}]` }],
  );

/**
 * Null: nobody need be asked. Restrictive wins: one entry that asks is enough, whatever else allows the call. So does doubt:
 * what an upstream may read as a call of the entry is one, else another spelling would pass by the wider entry that allows.
 */
export function demandOf(asking: readonly Asking[], call: Call): Demand | null {
  const found = asking.filter((entry) => findMeant(entry, call) !== undefined);
  if (found.length === 0) return null;
  const policies = found.map(({ approval }) => approval);
  const least = (of: (policy: Asking["approval"]) => number): number => Math.min(...policies.map(of)) * 1_000;
  return {
    at: found.map(({ at }) => at),
    waitMs: least(({ waitSeconds }) => waitSeconds),
    validMs: least(({ validSeconds }) => validSeconds),
    expireMs: least(({ expireSeconds }) => expireSeconds),
    notDelegator: policies.some(({ notDelegator }) => notDelegator),
    groups: policies.flatMap(({ groups }) => (groups === undefined ? [] : [groups])),
  };
}

/** A person as the identity provider names them. An id may differ from client to client: the address is compared as well. */
export interface Person {
  readonly human: string;
  readonly emailDigest: string | null;
}

/** All accounts that the configuration knows for one person, by the names that records have. */
export type Accounts = readonly string[];

/** What the delegator goes by besides; none where nobody has said so. */
export const otherAccountsOf = (samePerson: readonly Accounts[], { human, emailDigest }: Person): Accounts =>
  samePerson.filter((accounts) => isAmong(accounts, { human, emailDigest })).flat();

const isAmong = (accounts: Accounts, { human, emailDigest }: Person): boolean =>
  accounts.includes(human) || (emailDigest !== null && accounts.includes(emailDigest));

/**
 * Why this one may not decide; null: may. The role is the door's to ask.
 * @param accounts of the delegator
 */
export function whyNotBy(
  { notDelegator, groups }: Pick<Demand, "notDelegator" | "groups">,
  delegator: Person,
  approver: Person & { readonly groups: readonly string[] },
  accounts: Accounts,
): string | null {
  const missing = groups.find((oneOf) => !oneOf.some((group) => approver.groups.includes(group)));
  if (missing !== undefined) return `this needs an approver in the group ${missing.join(" or ")}`;
  if (!notDelegator) return null;
  const ANOTHER = "the agent acts for you: another must decide";
  if (approver.human === delegator.human || isAmong(accounts, approver)) return ANOTHER;
  if (delegator.emailDigest === null) return null;
  // The provider may name one person by two ids. Whose address is not known can't be told from the delegator.
  if (approver.emailDigest === null)
    return "your token has no e-mail address, or not a verified one, so you can't be told from whom the agent acts for";
  return approver.emailDigest === delegator.emailDigest ? ANOTHER : null;
}

/** The same by the same one, sent again: it is one. What was cancelled or ran out since must not be told as approved. */
export const isRepeatOf = (
  { verdict, by }: Pick<DecideRequest, "verdict" | "by">,
  { state, decision }: Pick<Approval, "state" | "decision">,
): boolean => decision?.verdict === verdict && decision.by === by && state !== "cancelled" && state !== "expired";
