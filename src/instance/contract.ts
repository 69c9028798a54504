import type { DecideAnswer, DecideRequest, TicketCalls } from "../approval/contract.ts";
import type { Limits } from "../config/define.ts";
import type { CloseAnswer } from "../control/acknowledgement.ts";
import type { Opening } from "../control/contract.ts";
import type { Sighting } from "../control/second-copy.ts";
import type { Switch } from "../control/switch.ts";
import type { Denial } from "../denial.ts";
import type { Units } from "../metering/amounts.ts";
import type { ShareReport, Ticket as ShareTicket } from "../quota/contract.ts";
import type { Extent } from "../retention/cover.ts";
import type { Call, Json } from "../scope/call.ts";
import type { Permit } from "../scope/decide.ts";
import type { BodyPart } from "../transcript/body-line.ts";
import type { RawPart } from "../transcript/layout.ts";
import type { HeldBody } from "../transcript/locate-body.ts";
import type { FamilyCalls } from "./family.ts";
import type { LimitState } from "./limits.ts";

/**
 * What the doors and an `AgentInstance` say to each other: plain data over RPC. Methods answer with values and never
 * throw; a call that rejects means broken infrastructure, and closes the door.
 */

/** One who acts, in the order of delegation: the instance that a platform provisioned, then its descendants. Names no more than ids. */
export interface Actor {
  /** By whose authority the first of them came: the same all the way down. */
  readonly client: string;
  readonly agent: string;
  readonly agentVersion: string;
  readonly instance: string;
}

export interface Manifest {
  readonly model: string;
  readonly promptDigest: string;
  readonly tools: Readonly<Record<string, string>>;
}

/** On whose behalf, by whom, and under what an instance works. */
export interface Lineage {
  readonly human: string;
  /** By which a switch can mean the human, too; null where the identity provider named no address. */
  readonly emailDigest: string | null;
  /** The identity provider says that it has not verified the address: it entitles to nothing, and a switch can still mean it. */
  readonly emailUnverified?: true;
  readonly agent: string;
  readonly client: string;
  /** The last one is the instance itself. */
  readonly chain: readonly Actor[];
  /** Instances that it descends from, the nearest last: a fact of the enrolment, never read from a token (RFC 8693 §4.1). */
  readonly ancestors: readonly string[];
  /** The parent's scope when it delegated, where another instance provisioned this one: a layer of its own. */
  readonly parentScope: readonly Json[] | null;
  /** Groups of the human, as the identity token or the mandate said. What was lost since is not here: see switches that narrow. */
  readonly groups: readonly string[];
  /** When the identity provider said so (`iat`): what the human lost later counts. */
  readonly groupsAtMs: number;
  /** The approval in advance under which it works, where nobody was there to delegate. */
  readonly mandate: string | null;
}

/** All that binds an instance: to its key, its task, its human. Written once, by `enrol`. */
export interface Enrolment extends Lineage {
  /** The key's thumbprint. */
  readonly instance: string;
  readonly agentVersion: string;
  readonly manifest: Manifest;
  /** Where it is enlisted, for as long as it lives. */
  readonly rosterShard: number;
  readonly task: { readonly id: string; readonly purpose: string; readonly deadlineMs: number };
  readonly grant: string;
  /** The pairwise, opaque `sub` of its grants. */
  readonly subject: string;
  /** RFC 9396, as granted. */
  readonly scope: readonly Json[];
  readonly limits: Limits;
  /** SHA-256, in hex, of the refresh token; null where none was given. */
  readonly refreshDigest: string | null;
}

export interface EnrolRequest {
  readonly enrolment: Enrolment;
  /** Identity claims of the human at this time: a body of the record, so that they can be erased. */
  readonly humanClaims: { readonly [claim: string]: Json };
  readonly proof: ProofMark;
  readonly deployment: string;
  /** How many calls it may start with at once, where a parent gave them; else as many as its burst. */
  readonly tokens?: number;
}

/** What the instance needs of a proof in order to refuse its replay. */
export interface ProofMark {
  readonly jti: string;
  readonly issuedAtMs: number;
}

export type EnrolAnswer =
  | { readonly enrolled: true }
  | { readonly enrolled: false; readonly reason: EnrolRefusal }
  /** The scope is more than the human is entitled to by the groups that are left: some were lost since the identity token. */
  | { readonly enrolled: false; readonly reason: "narrowed"; readonly groups: readonly string[] };
export type EnrolRefusal = "key-enrolled" | "switched" | "replay" | "unavailable";

export interface RenewRequest {
  /** From where; null where the edge says nothing. */
  readonly sighting?: Sighting | null;
  readonly refreshDigest: string;
  readonly grant: string;
  readonly expiresAtMs: number;
  readonly proof: ProofMark;
  readonly deployment: string;
}
export type RenewAnswer =
  | { readonly renewed: true; readonly enrolment: Enrolment }
  | { readonly renewed: false; readonly reason: string };

export interface AdmitRequest {
  readonly grant: { readonly id: string; readonly expiresAtMs: number };
  readonly proof: ProofMark;
  /** Null where the request could not be described. */
  readonly call: Call | null;
  /** Null: so far permitted. Else what the steps before found; recorded here, unless state says something that goes first. */
  readonly denial: Denial | null;
  readonly request: RecordedRequest;
  readonly deployment: string;
  /** By what the grant allows it: `entry` is the place in `authorization_details`. */
  readonly permit?: Permit;
  /** From where; null where the edge says nothing. */
  readonly sighting?: Sighting | null;
  /** Where the upstream is to be told who acts for whom: what goes on record of that. */
  readonly delegation?: DelegationMark;
}

/** By which a signed delegation is found again. The token itself is nowhere. */
export interface DelegationMark {
  readonly jti: string;
  readonly aud: string;
}

/** What an instance knows of itself, and what it never passes to its agent. */
export interface DelegationFacts {
  readonly human: string;
  readonly instance: string;
  readonly agent: string;
  readonly agentVersion: string;
  readonly client: string;
  /** In the order of delegation: the first got it from the human. */
  readonly chain: readonly Actor[];
  readonly task: string;
  /** Under which nobody was there to delegate; null: somebody was. */
  readonly mandate: string | null;
}

export interface RecordedRequest {
  readonly method: string;
  /** Path and query as sent. */
  readonly target: string;
  /** As sent, without the credentials of the gate itself. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** The body, or its first run where `bodyFollows`. */
  readonly body: Uint8Array;
  readonly bodyFollows: boolean;
  /** Where rules concern the call: what they have done to the fields above. */
  readonly redaction?: RequestRedaction;
}

/** A value that is not in what is recorded. */
export interface RedactedValue {
  readonly rule: string;
  /** A JSON pointer into the body, `header:<name>`, `query:<name>`, or `header:<name>?<parameter>`. Empty: the whole body. */
  readonly at: string;
  /** SHA-256, in hex, of the value's own salt and its bytes. Null, both: it was not read to its end. */
  readonly digest: string | null;
  readonly bytes: number | null;
}

export interface Redaction {
  /** The rules that were applied, whether or not they found anything. */
  readonly applied: readonly string[];
  readonly values: readonly RedactedValue[];
  /** Null: the body is recorded as it is. */
  readonly body: RedactedBody | null;
}

export interface RedactedBody {
  /** Its length as it was sent; null where it was not read to its end. */
  readonly trueBytes: number | null;
  /** It could not be redacted, and so is not recorded at all. */
  readonly withheld: boolean;
}

export interface RequestRedaction extends Redaction {
  /** Lies with the request's body, for it and for all values that were taken out of the call, in either direction. */
  readonly salt: Uint8Array;
}

/** Why a lease broke. */
export type Cause =
  | "switched"
  /** A switch of this call's upstream; the instance goes on. */
  | "upstream-switched"
  | "ended"
  | "expired"
  | "budget"
  /** The confirmation ran out and the roster did not give another: a switch may stand that nobody could push. */
  | "unconfirmed"
  /** The human has lost a group, and with it what allowed this call; the instance goes on. */
  | "narrowed"
  /** R2 can't be written, and the log holds what it may. */
  | "log-full";

export interface AnswerHead {
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly mediaType: string | null;
  readonly coding: string;
}

export type Outcome =
  /** The upstream answered, all of it is here. */
  "complete" | "cut" | "client-gone" | "upstream-failed" | "timeout" | "too-large" | "not-sent";

/** On the Worker's clock. */
export interface Timing {
  readonly startedAtMs: number;
  readonly firstByteAtMs: number | null;
  /** When a byte last passed, in either direction; null where none did. */
  readonly lastByteAtMs: number | null;
  readonly endedAtMs: number;
}

export interface Settlement {
  readonly outcome: Outcome;
  /** Null where the upstream said nothing. */
  readonly head: AnswerHead | null;
  /** What of the answer has not been appended yet. */
  readonly tail: Uint8Array;
  /** Bytes of the answer that went to the agent. */
  readonly passedBytes: number;
  /** Bytes that go to it when this is durable, and never where the lease had broken. */
  readonly heldBytes: number;
  /** Bytes of the request that went to the upstream. */
  readonly forwardedBytes: number;
  readonly timing: Timing;
  readonly reason: string | null;
  /** Of a metered call: what its whole answer says that it cost. A unit that is not here costs its reserve. */
  readonly units?: Units;
  /** Where rules concern the answer: what they have done to its head and its body. */
  readonly redaction?: Redaction;
}

/** Calls on a lease belong to the RPC session of `admit`: they cost no further Durable Object request. */
export interface LeaseCalls {
  /** Pending until a switch, the deadline, the end, or a spent budget breaks the lease. Rejects when the object was reset. */
  broken(): Promise<Cause>;
  /** A run of a long request body, durable when this returns. False: the lease is broken, forward nothing. */
  appendRequest(bytes: Uint8Array, last: boolean): Promise<boolean>;
  /**
   * A run of a long answer, of the length that its head declares, durable and counted when this returns. From here on so many
   * bytes may pass before they are appended. Null: the lease is broken, pass nothing more.
   */
  append(bytes: Uint8Array, declaredBytes?: number | null): Promise<number | null>;
  /**
   * The outcome, durable when this returns. Else why the lease had broken before, or breaks by what is settled: the call is
   * recorded as cut. False: it was given up.
   */
  settle(settlement: Settlement): Promise<boolean | Cause>;
  /**
   * Asked in turns as long as the call runs. True: the lease holds, and the instance holds its confirmation. False: it
   * broke, and `broken()` says why.
   */
  beat(): Promise<boolean>;
}

export type Admission =
  | AdmitRefusal
  | {
      readonly admitted: true;
      readonly seq: number;
      readonly lease: LeaseCalls & Partial<Disposable>;
      /** So many bytes of its answer may pass before they are appended. */
      readonly aheadBytes: number;
      readonly limits: LimitState;
      /** Where it was asked for. */
      readonly delegation?: DelegationFacts;
      /** Where shared limits concern the call: what it took of them, to be said again where it is taken up again. */
      readonly tickets?: readonly ShareTicket[];
    };

/** By the Worker whose lease died with the object: what the object had of the call in memory alone. */
export interface ResumeRequest {
  readonly seq: number;
  /** As it was admitted. */
  readonly call: Call;
  readonly tickets: readonly ShareTicket[];
}

/** Between Workers and objects of different deployments: members may be added, and none may change. */
export type Resumption =
  | {
      readonly kind: "resumed";
      readonly lease: LeaseCalls & Partial<Disposable>;
      readonly aheadBytes: number;
      /** So much of its answer is durable: what follows is to be appended again. */
      readonly answerBytes: number;
      /** Not null: the lease is broken already. Pass nothing, and settle. */
      readonly cause: Cause | null;
    }
  /** Its end is on record. */
  | { readonly kind: "over"; readonly outcome: Outcome | "lost"; readonly cause: Cause | null }
  | { readonly kind: "refused" };

export interface AdmitRefusal {
  readonly admitted: false;
  readonly denial: Denial;
  /** Of a call that is pending and may wait for a person. */
  readonly ticket?: Ticket & Partial<Disposable>;
  /** With the denial of a limit. */
  readonly limits?: LimitState;
}

export interface Ticket extends TicketCalls {
  /** Once, when it was decided: everything is asked again, and the approval is spent with the call's record. */
  claim(): Promise<Admission>;
}

export interface IntrospectAnswer {
  /** `unknown`: the roster could not be asked, and nobody may be told that the instance is inactive. */
  readonly state: "active" | "inactive" | "unknown";
  readonly enrolment: Enrolment | null;
  /** Of the enrolment's groups, those that count: without what was lost since. */
  readonly groups: readonly string[];
}

/** What has not left for R2, as exact lines, and the partition that it will stand in. */
export interface UnstoredLines {
  readonly partition: string;
  readonly lines: readonly string[];
}

/** What the object still has of a body, and the partition that it belongs to. What it lacks is in R2. */
export interface UnstoredBody extends HeldBody {
  readonly partition: string;
}

/** The methods of `AgentInstance`, as its callers see them. */
export interface AgentInstanceCalls extends FamilyCalls {
  enrol(request: EnrolRequest): Promise<EnrolAnswer>;
  renew(request: RenewRequest): Promise<RenewAnswer>;
  admit(request: AdmitRequest): Promise<Admission>;
  revoke(by: string, deployment: string): Promise<CloseAnswer | null>;
  introspect(): Promise<IntrospectAnswer>;
  /** A switch in whose reach it is. Known by its id: asked again it says how far it is. */
  close(sw: Switch): Promise<CloseAnswer>;
  /** A pause that was resumed, by whom and why; null: that word was lost, and only its end is known. */
  reopen(id: string, opening: Pick<Opening, "by" | "reason"> | null): Promise<void>;
  /** A call is over whose lease was lost with an earlier life of the object: its place is free. */
  callStopped(seq: number): Promise<void>;
  /** A call whose lease was lost with an earlier life of the object goes on, if nothing says that it may not. */
  resume(request: ResumeRequest): Promise<Resumption>;
  /** A person's decision about a call that it holds back. */
  decideApproval(id: string, request: DecideRequest): Promise<DecideAnswer>;
  read(fromSeq: number, maxLines: number): Promise<UnstoredLines | null>;
  readBody(seq: number, part: BodyPart): Promise<UnstoredBody | null>;
  /** A raw object that is not in R2, as far as it is filled; null: it is in R2, or there is none. */
  readRaw(seq: number, part: RawPart, no: number): Promise<Uint8Array | null>;
  /** Bodies of records up to then go where they lie here; those in the bucket are the asker's. Null: there is no such instance. */
  erase(beforeMs: number): Promise<ErasedBodies | "later" | null>;
  /** A quota wants back what it has leased: from here on this instance has none of it, and says what it has used. */
  recall(quota: string): Promise<ShareReport | null>;
}

/** How far the erasure reaches in this transcript, and how many bodies went here. `later`: what is sealed must reach the bucket first. */
export interface ErasedBodies extends Extent {
  readonly blanked: number;
}
