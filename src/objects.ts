import type { ApprovalDeskCalls } from "./approval/contract.ts";
import type { Config } from "./config/define.ts";
import type { JournalCalls, RosterCalls, SwitchboardCalls } from "./control/contract.ts";
import type { Deployment } from "./deployment.ts";
import type { AgentInstanceCalls } from "./instance/contract.ts";
import type { MandateBookCalls, MandateIndexCalls } from "./mandate/contract.ts";
import type { QuotaCalls } from "./quota/contract.ts";
import type { RetentionCalls } from "./retention/contract.ts";
import { indexJournalName } from "./transcript/segment-index.ts";
import type { CredentialBrokerCalls } from "./upstream/broker-contract.ts";

/** The Durable Objects by name, where the configuration says they must live. The only place that makes stubs. */

export const instanceOf = ({ env, config }: Deployment, instance: string): AgentInstanceCalls =>
  stub<AgentInstanceCalls>(env.AGENT_INSTANCE, config, instance);

export const rosterOf = ({ env, config }: Deployment, shard: number): RosterCalls =>
  stub<RosterCalls>(env.ROSTER, config, String(shard));

export const retentionOf = ({ env, config }: Deployment): RetentionCalls =>
  stub<RetentionCalls>(env.RETENTION, config, "retention");

/** @param name `<quota>.<key>` */
export const quotaOf = ({ env, config }: Deployment, name: string): QuotaCalls =>
  stub<QuotaCalls>(env.QUOTA, config, name);

/** One for each human, named by its id. */
export const mandateBookOf = ({ env, config }: Deployment, human: string): MandateBookCalls =>
  stub<MandateBookCalls>(env.MANDATE_BOOK, config, human);

export const mandateIndexOf = ({ env, config }: Deployment): MandateIndexCalls =>
  stub<MandateIndexCalls>(env.MANDATE_INDEX, config, "mandates");
export const approvalDeskOf = ({ env, config }: Deployment): ApprovalDeskCalls =>
  stub<ApprovalDeskCalls>(env.APPROVAL_DESK, config, "approvals");

export const switchboardOf = ({ env, config }: Deployment): SwitchboardCalls =>
  stub<SwitchboardCalls>(env.SWITCHBOARD, config, "switchboard");

/** One for each upstream and what a token is narrowed to. */
export const brokerOf = ({ env, config }: Deployment, name: string): CredentialBrokerCalls =>
  stub<CredentialBrokerCalls>(env.CREDENTIAL_BROKER, config, name);

/**
 * INVARIANT: what who has not authenticated can cause goes to the `-refused` journals alone, which are objects of their own: a flood
 * of it is never in the way of an act, a read, or a refusal of somebody known.
 */
export type JournalDoor = "authority" | "admin" | RefusedDoor;
export type RefusedDoor = "authority-refused" | "admin-refused" | "signals-refused";

/** A journal for each door and day (UTC). */
export const journalOf = ({ env, config }: Deployment, door: JournalDoor, nowMs: number): JournalCalls =>
  stub<JournalCalls>(env.JOURNAL, config, `${door}.${new Date(nowMs).toISOString().slice(0, 10)}`);

/** The index of segments: a journal for each hour (UTC) and shard. */
export const indexOf = ({ env, config }: Deployment, atMs: number, shard: number): JournalCalls =>
  stub<JournalCalls>(env.JOURNAL, config, indexJournalName(atMs, shard));

/** The calls are written out by hand: what RPC derives from a class is the same, and too deep for the compiler. */
function stub<Calls>(namespace: DurableObjectNamespace, { placement }: Config, name: string): Calls {
  const { jurisdiction, locationHint } = placement;
  const scoped =
    jurisdiction === undefined ? namespace : namespace.jurisdiction(jurisdiction as DurableObjectJurisdiction);
  const options = locationHint === undefined ? {} : { locationHint };
  return scoped.get(scoped.idFromName(name), options) as unknown as Calls;
}
