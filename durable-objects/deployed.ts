import { AgentInstance as AgentInstanceClass } from "./agent-instance.ts";
import { ApprovalDesk as ApprovalDeskClass } from "./approval-desk.ts";
import { checked } from "./checked-state.ts";
import { CredentialBroker as CredentialBrokerClass } from "./credential-broker.ts";
import { Journal as JournalClass } from "./journal.ts";
import { MandateBook as MandateBookClass } from "./mandate-book.ts";
import { MandateIndex as MandateIndexClass } from "./mandate-index.ts";
import { Quota as QuotaClass } from "./quota.ts";
import { Retention as RetentionClass } from "./retention.ts";
import { Roster as RosterClass } from "./roster.ts";
import { Switchboard as SwitchboardClass } from "./switchboard.ts";

/** The classes as they are deployed: each starts with state that this release can read, or refuses. */
export const AgentInstance = checked("AgentInstance", AgentInstanceClass);
export const ApprovalDesk = checked("ApprovalDesk", ApprovalDeskClass);
export const CredentialBroker = checked("CredentialBroker", CredentialBrokerClass);
export const Journal = checked("Journal", JournalClass);
export const MandateBook = checked("MandateBook", MandateBookClass);
export const MandateIndex = checked("MandateIndex", MandateIndexClass);
export const Quota = checked("Quota", QuotaClass);
export const Retention = checked("Retention", RetentionClass);
export const Roster = checked("Roster", RosterClass);
export const Switchboard = checked("Switchboard", SwitchboardClass);
