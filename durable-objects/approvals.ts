import { boundDigest, type Destination, shownHeaders, whyNotApprovable } from "../src/approval/bound.ts";
import {
  type Approval,
  type DecideAnswer,
  type DecideRequest,
  isOpen,
  type Verdict,
} from "../src/approval/contract.ts";
import { askingEntries, type Demand, demandOf, isRepeatOf, otherAccountsOf, whyNotBy } from "../src/approval/policy.ts";
import { takesRanges } from "../src/config/ranges.ts";
import { absent, type Denial } from "../src/denial.ts";
import type { AdmitRequest } from "../src/instance/contract.ts";
import type { Call } from "../src/scope/call.ts";
import { type Fields, sha256Hex } from "../src/transcript/envelope.ts";
import { ApprovalBook, type KeptApproval, MAX_OPEN } from "./approval-book.ts";
import { ApprovalHandover, type HandoverOptions, TELL_AGAIN_MS } from "./approval-handover.ts";
import { ApprovalWaits } from "./approval-waits.ts";
import { requestBody } from "./bodies.ts";
import { askedFields } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import type { Beside, Ledger } from "./ledger.ts";

/** What boundaries say of a call that they may hold back. */
export type Gate =
  /** Nobody need be asked. */
  | { readonly kind: "open" }
  | { readonly kind: "refused"; readonly denial: Denial }
  | { readonly kind: "approved"; readonly id: string }
  /** `known`: the request that it joins; null: there is none yet. */
  | { readonly kind: "wanted"; readonly demand: Demand; readonly digest: string; readonly known: string | null };

export interface ApprovalsOptions extends HandoverOptions {
  readonly kept: Kept;
  readonly ledger: () => Ledger;
  /** Why this call could not be admitted whatever a person says: a switch, the end, a ceiling; null: it could. */
  readonly whyNot: (call: Call, nowMs: number) => string | null;
}

const OPEN: Gate = { kind: "open" };

/**
 * Requests for approval of one instance, which is the authority on them: each covers exactly one call, once, for a time.
 * All but `handOver` is synchronous: a decision, a use or an end is one commit with its record.
 */
export class Approvals {
  readonly #options: ApprovalsOptions;
  readonly #book: ApprovalBook;
  readonly waits = new ApprovalWaits();
  readonly #handover: ApprovalHandover;
  #asking: ReturnType<typeof askingEntries> | null = null;

  constructor(options: ApprovalsOptions) {
    this.#options = options;
    this.#book = new ApprovalBook(options.kept);
    this.#handover = new ApprovalHandover(options, this.#book);
  }

  // --- a call -----------------------------------------------------------------------------------------------------

  look({ request }: AdmitRequest, call: Call, nowMs: number): Gate {
    const { config } = this.#options.deployment();
    this.#asking ??= askingEntries(config.boundaries);
    const demand = this.#asking.length === 0 ? null : demandOf(this.#asking, call);
    if (demand === null) return OPEN;
    const fault = whyNotApprovable(request);
    if (fault !== null) return { kind: "refused", denial: absent("describe", fault) };
    this.settle(nowMs);
    // An approval that was given by other rules than those of now is none.
    const accounts = demand.notDelegator ? this.#accounts() : [];
    const terms = JSON.stringify([demand.groups, demand.notDelegator, ...accounts]);
    const digest = sha256Hex(boundDigest(this.#destination(call.upstream), request), terms);
    const { approval } = this.#book.find(digest) ?? {};
    switch (approval?.state) {
      case "approved":
        return { kind: "approved", id: approval.id };
      case "asked":
        return { kind: "wanted", demand, digest, known: approval.id };
      case "denied":
      case "expired":
        if (nowMs >= (approval.endedAtMs ?? 0) + demand.expireMs)
          return { kind: "wanted", demand, digest, known: null };
        return { kind: "refused", denial: absent("boundaries", `approval ${approval.id} is ${approval.state}`) };
      case "used":
      case "cancelled":
      case undefined:
        return { kind: "wanted", demand, digest, known: null };
    }
  }

  /** Why the agent has to wait. A request that is open already is joined. */
  pending(known: string | null): Denial {
    if (known !== null) return { kind: "pending", approval: known, reason: `waits for approval ${known}` };
    return {
      kind: "pending",
      approval: null,
      reason: `${MAX_OPEN} requests for approval are open, or the desk is out of reach`,
    };
  }

  get isFull(): boolean {
    return this.#book.isFull;
  }

  /** The first sight of a call: on record, and on its way to the desk. Returns the id of the request. */
  ask(
    request: AdmitRequest,
    call: Call,
    { demand, digest }: Extract<Gate, { kind: "wanted" }>,
    beside: Beside & { readonly deployment: string },
    nowMs: number,
  ): string {
    const ledger = this.#options.ledger();
    const enrolment = ledger.enrolment!;
    const id = crypto.randomUUID();
    const { request: sent } = request;
    const seq = ledger.nextSeq();
    const { reference, piece } = requestBody(sent, seq);
    const to = this.#destination(call.upstream);
    const expiresAtMs = Math.min(nowMs + demand.expireMs, enrolment.task.deadlineMs);
    const approval: Approval = {
      id,
      instance: enrolment.instance,
      human: enrolment.human,
      agent: enrolment.agent,
      agentVersion: enrolment.agentVersion,
      task: enrolment.task.id,
      purpose: enrolment.task.purpose,
      upstream: call.upstream,
      method: sent.method,
      url: to.baseUrl + sent.target.slice(call.upstream.length + 1),
      headers: shownHeaders(to, sent.headers),
      body: reference,
      seq,
      entries: demand.at,
      groups: demand.groups,
      notDelegator: demand.notDelegator,
      askedAtMs: nowMs,
      expiresAtMs,
      state: "asked",
      decision: null,
      validUntilMs: null,
      endedAtMs: null,
      cause: null,
      call: null,
    };
    this.#book.put({ approval, digest, call, demand, grant: request.grant.id, told: null });
    ledger.record("approval", nowMs, askedFields(id, request, call.upstream, reference, { demand, expiresAtMs }), {
      ...beside,
      body: piece,
    });
    this.#handover.soon(expiresAtMs);
    return id;
  }

  /** INVARIANT: in the same commit as the call's record, whose `seq` this is. What the record says of it. */
  use(id: string, seq: number, nowMs: number): Fields {
    const kept = this.#book.get(id);
    const decision = kept?.approval.decision;
    if (kept?.approval.state !== "approved" || decision == null) throw new Error("an approval that can't be used");
    this.#put(kept, { state: "used", endedAtMs: nowMs, call: seq });
    this.#handover.soon(nowMs);
    return { approval: id, approver: decision.by };
  }

  /** A switch was closed a moment ago: who waits in its reach is answered now. The record follows with the switch's. */
  wakeStopped(nowMs: number): void {
    for (const id of this.waits.ids) {
      const kept = this.#book.get(id);
      if (kept === undefined || this.#options.whyNot(kept.call, nowMs) !== null) this.waits.wake(id);
    }
  }

  // --- a decision -------------------------------------------------------------------------------------------------

  decide(id: string, request: DecideRequest, nowMs: number): DecideAnswer {
    const ledger = this.#options.ledger();
    this.settle(nowMs);
    this.cancel(nowMs);
    const kept = this.#book.get(id);
    if (kept === undefined || ledger.enrolment === null) return { kind: "unknown" };
    const { approval } = kept;
    if (approval.state !== "asked") {
      const isRepeated = isRepeatOf(request, approval);
      return isRepeated ? { kind: "decided", isRepeated, approval } : { kind: "over", approval };
    }
    const { human, emailDigest } = ledger.enrolment;
    const approver = { human: request.by, emailDigest: request.emailDigest, groups: request.groups };
    const forbidden = whyNotBy(kept.demand, { human, emailDigest }, approver, this.#accounts());
    if (forbidden !== null) return { kind: "forbidden", reason: forbidden };
    return { kind: "decided", isRepeated: false, approval: this.#decide(kept, request, nowMs) };
  }

  #decide(kept: KeptApproval, { verdict, by, email, reason }: DecideRequest, nowMs: number): Approval {
    const decision = { verdict, by, email, reason, atMs: nowMs };
    const { deadlineMs } = this.#options.ledger().enrolment!.task;
    const validUntilMs = verdict === "approved" ? Math.min(nowMs + kept.demand.validMs, deadlineMs) : null;
    const until = validUntilMs === null ? { endedAtMs: nowMs } : { validUntilMs };
    const approval = this.#put(kept, { state: verdict, decision, ...until });
    const fields = validUntilMs === null ? {} : { validUntil: validUntilMs };
    this.#record(kept, verdict, { by, reason, ...fields }, nowMs);
    this.#handover.soon(validUntilMs ?? nowMs);
    this.waits.wake(approval.id);
    return approval;
  }

  // --- its end ----------------------------------------------------------------------------------------------------

  /** What nobody decided, or used, in time. */
  settle(nowMs: number): void {
    if (this.#book.isEmpty) return;
    for (const kept of this.#book.open) {
      const { state, expiresAtMs, validUntilMs } = kept.approval;
      if (nowMs < (validUntilMs ?? expiresAtMs)) continue;
      this.#end(kept, "expired", state === "asked" ? "nobody decided in time" : "it was not used in time", nowMs);
    }
    this.#book.forget(nowMs);
  }

  /** What can't be admitted any more, whatever a person says: by a switch, the end, or a ceiling. `all`: the transcript ends. */
  cancel(nowMs: number, all?: string): void {
    if (this.#book.isEmpty) return;
    for (const kept of this.#book.open) {
      const why = all ?? this.#options.whyNot(kept.call, nowMs);
      if (why !== null) this.#end(kept, "cancelled", why, nowMs);
    }
  }

  /** Bodies up to then go: nobody can look at what they would approve, and its facts are kept here no longer. */
  erase(beforeMs: number, nowMs: number): void {
    for (const kept of this.#book.open)
      if (kept.approval.askedAtMs <= beforeMs) this.#end(kept, "cancelled", "its body is erased", nowMs);
  }

  #end(kept: KeptApproval, state: "expired" | "cancelled", cause: string, nowMs: number): void {
    this.#put(kept, { state, cause, endedAtMs: nowMs });
    this.#record(kept, state, { reason: cause }, nowMs);
    this.#handover.soon(nowMs);
    this.waits.wake(kept.approval.id);
  }

  /** Appended: what must stand before it is what called for it, and is written by then. */
  #record(
    { approval, grant }: KeptApproval,
    state: Verdict | "expired" | "cancelled",
    fields: Fields,
    nowMs: number,
  ): void {
    const ledger = this.#options.ledger();
    if (!ledger.log.isClosed) ledger.append("approval", nowMs, { approval: approval.id, state, ...fields }, { grant });
  }

  #put(kept: KeptApproval, change: Partial<Approval>): Approval {
    const approval = { ...kept.approval, ...change };
    // What is over is asked of no ceiling any more: nothing of its body stays here.
    const call: Call = isOpen(approval.state) ? kept.call : { ...kept.call, body: { kind: "opaque" } };
    this.#book.put({ ...kept, approval, call });
    return approval;
  }

  // --- the desk ---------------------------------------------------------------------------------------------------

  /** What it has not heard. */
  handOver(): void {
    this.#handover.now();
  }

  /** When there is something to do; null: nothing is open, and the desk knows all. */
  dueAtMs(nowMs: number): number | null {
    if (this.#book.isEmpty) return null;
    const times = this.#book.all.map(({ approval, told, demand }) => {
      if (told !== approval.state) return nowMs + TELL_AGAIN_MS;
      return isOpen(approval.state)
        ? (approval.validUntilMs ?? approval.expiresAtMs)
        : (approval.endedAtMs ?? nowMs) + demand.expireMs;
    });
    return Math.min(...times);
  }

  /** Of whom the agent acts for. */
  #accounts(): readonly string[] {
    const { samePerson } = this.#options.deployment().config.approvals;
    return samePerson.length === 0 ? [] : otherAccountsOf(samePerson, this.#options.ledger().enrolment!);
  }

  #destination(upstream: string): Destination {
    const config = this.#options.deployment().config.upstreams[upstream]!;
    const { baseUrl, forwardHeaders } = config;
    return { upstream, baseUrl, forwardHeaders, takesRanges: takesRanges(config) };
  }
}
