import type * as z from "zod";
import { ApprovalReader } from "./verify-approvals.ts";
import { CallReader } from "./verify-calls.ts";
import { ChildrenReader } from "./verify-children.ts";
import { type Member, MemberReader } from "./verify-families.ts";
import type { Findings } from "./verify-findings.ts";
import { IdentityReader } from "./verify-identity.ts";
import { findOfLayers } from "./verify-layers.ts";
import { parseSaid } from "./verify-parse.ts";
import { findOfRefusal } from "./verify-refusals.ts";
import { ScopeReader } from "./verify-scope.ts";
import type { ReadRecord } from "./verify-segment.ts";
import {
  type ApprovalSaid,
  answerShape,
  approvalShape,
  callBodyShape,
  callShape,
  type Delegation,
  delegatedShape,
  type Enrolled,
  endedShape,
  enrolledShape,
  type Refusal,
  refusedShape,
  renewedShape,
  switchedShape,
} from "./verify-shapes.ts";
import { SpendingReader } from "./verify-spending.ts";
import { StatedBodies } from "./verify-stated-bodies.ts";
import { StopReader } from "./verify-stops.ts";

export interface Holes {
  isHole(seq: number): boolean;
  hasHoles(): boolean;
}

/** What is left to say when the last record was read. */
export interface InstanceSummary {
  /** `seq` of calls without an answer. */
  readonly openCalls: readonly number[];
  /** Null: nothing that others could be held to. */
  readonly member: Member | null;
}

/** What the records of one instance say, held against each other: each idea has a reader of its own, and this one says who reads what. */
export class InstanceReader {
  readonly bodies = new StatedBodies();
  readonly calls = new CallReader(this.bodies);
  readonly scope = new ScopeReader();
  readonly #identity = new IdentityReader();
  readonly #stops = new StopReader();
  readonly #approvals = new ApprovalReader();
  readonly #children = new ChildrenReader();
  readonly #spending = new SpendingReader(this.#children);
  readonly #member = new MemberReader();
  readonly #findings: Findings;
  readonly #holes: Holes;
  #enrolled: Enrolled | null = null;
  #isSpoilt = false;

  constructor(findings: Findings, holes: Holes) {
    this.#findings = findings;
    this.#holes = holes;
  }

  get deadlineMs(): number | null {
    return this.#enrolled?.deadline ?? null;
  }

  read(record: ReadRecord, segment: number): void {
    this.#findAcross(record, this.#identity.read(record));
    const { type } = record;
    if (type === "enrolled") this.#readEnrolled(record, segment);
    else if (type === "renewed") this.#readRenewed(record);
    else if (type === "call") this.#readCall(record, segment);
    else if (type === "answer") this.#readAnswer(record, segment);
    else if (type === "refused") this.#readRefused(record, segment);
    else if (type === "switched") this.#readSwitched(record);
    else if (type === "delegated") this.#readDelegated(record);
    else if (type === "approval") this.#readApproval(record, segment);
    else if (type === "ended") this.#readEnded(record);
    else this.#findAcross(record, this.#identity.readGrant(record, false));
  }

  /** What it says counts no more against other records. */
  spoil(): void {
    this.#isSpoilt = true;
  }

  #readEnrolled(record: ReadRecord, segment: number): void {
    const said = this.#parse(enrolledShape, record);
    if (said === null) return;
    this.#enrolled = said;
    this.#find(record, this.#identity.readEnrolled(record, said));
    this.#find(record, this.scope.readEnrolled(said.scope));
    this.#stops.begin(said.deadline);
    this.#spending.begin(said.limits);
    this.#member.enrol(record, said);
    this.bodies.state({ seq: 0, part: "claims" }, said.claims, record, segment, segment);
  }

  #readRenewed(record: ReadRecord): void {
    const said = this.#parse(renewedShape, record);
    if (said === null) return;
    this.#findAcross(record, this.#identity.readGrant(record, false));
    this.#findAcross(record, this.#identity.readRenewed(said));
    this.#findAcross(record, this.#stops.readDeed(record, null));
  }

  #readCall(record: ReadRecord, segment: number): void {
    this.#findAcross(record, this.#approvals.readCall(record.envelope));
    const said = this.#parse(callShape, record);
    if (said === null) {
      const { body = null } = callBodyShape.safeParse(record.envelope).data ?? {};
      this.calls.readCall(record, { body }, segment);
      return;
    }
    const { seq, place, envelope } = record;
    this.calls.readCall(record, said, segment);
    this.#find(record, findOfLayers(envelope, said));
    this.#find(record, this.scope.readCall(seq, place, said));
    this.#findAcross(record, this.#identity.readGrant(record, true));
    this.#findAcross(record, this.#stops.readDeed(record, said.upstream) ?? this.#stops.readCeilings(said));
    this.#findAcross(record, this.#spending.readCall(seq, place, said));
  }

  #readAnswer(record: ReadRecord, segment: number): void {
    const said = this.#parse(answerShape, record);
    if (said === null) return;
    const state = this.calls.isOpen(said.call);
    if (state !== "open") {
      if (state === "answered") this.#find(record, `a second answer to the call of seq ${said.call}`);
      else if (!this.#holes.isHole(said.call))
        this.#find(record, `answers seq ${said.call}, which is no call before it`);
      return;
    }
    this.#find(record, this.calls.readAnswer(record, said, segment));
    if (said.switch !== undefined) this.#findAcross(record, this.#stops.readCut(said.switch));
    this.#findAcross(record, this.#spending.readAnswer(said));
  }

  #readRefused(record: ReadRecord, segment: number): void {
    const said = this.#parse(refusedShape, record);
    if (said === null) return;
    this.#findAcross(record, this.#identity.readGrant(record, false));
    if ("decision" in said) this.#find(record, findOfRefusal(said as Refusal));
    const body = said.body ?? null;
    if (body !== null) this.bodies.state({ seq: record.seq, part: "request" }, body, record, segment, segment);
  }

  #readSwitched(record: ReadRecord): void {
    const said = this.#parse(switchedShape, record);
    if (said === null) return;
    this.#findAcross(record, this.#identity.readGrant(record, false));
    this.#findAcross(record, this.#stops.read(record, said));
  }

  #readDelegated(record: ReadRecord): void {
    const said = this.#parse(delegatedShape, record);
    if (said === null) return;
    this.#member.delegate(record, said);
    this.#findAcross(record, this.#identity.readGrant(record, said.act === "delegate"));
    if (said.act === "return") this.#findAcross(record, this.#children.giveBack(said));
    else {
      this.#findAcross(record, this.#stops.readDeed(record, null));
      this.#findAcross(record, this.#delegate(said));
    }
  }

  #delegate(said: Delegation): string | null {
    if (this.#enrolled === null) return null;
    return this.#children.delegate(said, this.#enrolled, this.scope.entries, this.#spending.used);
  }

  #readApproval(record: ReadRecord, segment: number): void {
    this.#findAcross(record, this.#approvals.read(record.envelope));
    this.#findAcross(record, this.#identity.readGrant(record, false));
    const state = record.envelope["state"];
    if (state === "asked" || state === "approved") this.#findAcross(record, this.#stops.readDeed(record, null));
    const said = this.#parse(approvalShape, record);
    if (said !== null) this.#findAcross(record, this.#findOfTimes(said));
    const body = said?.body ?? null;
    if (body !== null) this.bodies.state({ seq: record.seq, part: "request" }, body, record, segment, segment);
  }

  /** Nobody decides, or uses, beyond the deadline. */
  #findOfTimes(said: ApprovalSaid): string | null {
    const until = said.state === "asked" ? said.expires : said.state === "approved" ? said.validUntil : 0;
    return until > (this.deadlineMs ?? Number.POSITIVE_INFINITY) ? "is open beyond the deadline" : null;
  }

  #readEnded(record: ReadRecord): void {
    const said = this.#parse(endedShape, record);
    if (said === null) return;
    this.#member.end(record, said);
    this.#findAcross(record, this.#identity.readGrant(record, false));
    this.#findAcross(record, this.#stops.readEnded(record, said));
    this.#findAcross(record, this.#spending.readEnded(said));
    for (const id of this.#approvals.open) this.#findAcross(record, `approval ${id} is open, and the transcript ended`);
  }

  /** After the last record. Calls without an answer are a fact while the transcript is open, a finding once it has ended. */
  finish(isEnded: boolean, of: Pick<Member, "partition" | "latestMs">): InstanceSummary {
    const { open } = this.calls;
    const hasHoles = this.#holes.hasHoles();
    if (!hasHoles) {
      for (const { place } of isEnded ? open : [])
        this.#findings.add(place, "a call without an answer, and the transcript ended");
      for (const { place, problem } of this.#spending.crowded) this.#findings.add(place, problem);
    }
    const member = this.#member.member({ ...of, children: this.#children, hasHoles: hasHoles || this.#isSpoilt });
    return { openCalls: open.map(({ seq }) => seq), member };
  }

  #parse<T extends z.ZodType>(shape: T, record: ReadRecord): z.output<T> | null {
    const said = parseSaid(shape, record.envelope);
    if (said.ok) return said.value;
    this.#isSpoilt = true;
    this.#find(record, `not a record of type ${record.type}: ${said.error}`);
    return null;
  }

  #find({ place }: ReadRecord, problem: string | null): void {
    if (problem !== null) this.#findings.add(place, problem);
  }

  /** Of what other records say: where some are not here to be read, or are none, what they say is not missed. */
  #findAcross(record: ReadRecord, problem: string | null): void {
    if (!this.#holes.hasHoles() && !this.#isSpoilt) this.#find(record, problem);
  }
}
