import { statesDelegation } from "../src/config/credential.ts";
import { absent, type Denial, unauthenticated, unavailable } from "../src/denial.ts";
import type { Deployment } from "../src/deployment.ts";
import { isFresh } from "../src/grant/proof.ts";
import { leadBytesOf, unitsOf } from "../src/instance/call-cost.ts";
import type {
  Admission,
  AdmitRefusal,
  AdmitRequest,
  ProofMark,
  RecordedRequest,
  RenewRequest,
} from "../src/instance/contract.ts";
import { type LimitState, limitStateOf, reserve } from "../src/instance/limits.ts";
import type { Wanted } from "../src/quota/contract.ts";
import { countingBytes, wantedOf } from "../src/quota/shares.ts";
import type { Call } from "../src/scope/call.ts";
import type { Approvals, Gate } from "./approvals.ts";
import { requestBody } from "./bodies.ts";
import type { Family } from "./family.ts";
import type { InstanceControl } from "./instance-control.ts";
import { callFields, delegationFacts } from "./instance-fields.ts";
import { Lease } from "./lease.ts";
import type { Ledger } from "./ledger.ts";
import { jtiOf } from "./proof-mark.ts";
import type { RefusedCalls } from "./refused-calls.ts";
import type { RunningCalls } from "./running-calls.ts";
import { SecondCopy } from "./second-copy.ts";
import type { InstanceShares } from "./shares.ts";
import { CallTicket } from "./ticket.ts";
import { WaitingCalls } from "./waiting-calls.ts";

/** So long a call waits for shared limits; below the gate's own patience. */
const QUOTA_PATIENCE_MS = 6_000;
/** What a request takes beside its body, target and headers. */
const REQUEST_BYTES = 1_024;
/** So many calls at most wait for a person in this object. Others are pending at once. */
const MAX_WAITING = 10;

export interface AdmitterOptions {
  readonly ledger: Ledger;
  readonly control: InstanceControl;
  readonly family: Family;
  readonly approvals: Approvals;
  readonly shares: InstanceShares;
  readonly calls: RunningCalls;
  readonly refused: RefusedCalls;
  readonly deployment: () => Deployment;
}

/** The only place where a call is admitted. */
export class Admitter {
  readonly #options: AdmitterOptions;
  readonly #copies = new SecondCopy();
  readonly #quotaWaits = new WaitingCalls();
  readonly #rosterWaits = new WaitingCalls();

  constructor(options: AdmitterOptions) {
    this.#options = options;
  }

  /** @param isClaim of a call that has waited for a person: its proof was held against replay when it came */
  async admit(request: AdmitRequest, isClaim: boolean): Promise<Admission> {
    const untilMs = Date.now() + QUOTA_PATIENCE_MS;
    // Where it comes from counts once, and a proof that was fresh when it came does not age while it waits.
    let isAgain = isClaim;
    let endWait = (): void => {};
    try {
      for (let verdict: Denial | null = null; ; ) {
        if (!(await this.#isConfirmed(request.request))) return refused(unavailable("no confirmation from the roster"));
        const nowMs = Date.now();
        if (nowMs >= untilMs) verdict ??= unavailable("the shared limits did not answer in time");
        // Not before: nobody else gets the place for which it waited.
        endWait();
        const admission = this.#admitNow(request, nowMs, verdict, { isClaim, isAgain });
        isAgain = true;
        if ("admitted" in admission) return admission;
        endWait = this.#quotaWaits.begin(request.request.body.length);
        // Dying here, nothing is on record, and nothing of a lease was used.
        verdict = await this.#options.shares.extend(admission.uncovered);
      }
    } finally {
      endWait();
    }
  }

  /** Who has no confirmation waits for the roster, with others as far as there is room for their requests. */
  async #isConfirmed(sent: RecordedRequest): Promise<boolean> {
    const bytes = bytesHeld(sent);
    if (!this.#rosterWaits.hasRoom(bytes)) return false;
    const endWait = this.#rosterWaits.begin(bytes);
    try {
      return await this.#options.control.isConfirmed();
    } finally {
      endWait();
    }
  }

  /**
   * INVARIANT: synchronous. Between the first check and the record nothing can interleave. Order: what depends on the
   * credentials alone (replay, switches, the task's end), what the steps before found, ceilings, approval, limits, shared limits
   * last: no other is asked for a call that is refused here.
   * @param verdict of the quotas that were asked; null: they were not, or it is to be looked at again
   */
  #admitNow(
    request: AdmitRequest,
    nowMs: number,
    verdict: Denial | null,
    { isClaim, isAgain }: { readonly isClaim: boolean; readonly isAgain: boolean },
  ): Admission | Uncovered {
    const { enrolment, log } = this.#options.ledger;
    if (enrolment === null) return refused(unauthenticated("invalid_token", "no such instance"));
    if (log.isClosed) return refused(unauthenticated("invalid_token", "the transcript has ended"));
    const { proof, grant, call, denial, request: sent } = request;
    const isReplay = isAgain ? !isClaim && log.hasSeen(proof.jti) : this.isReplayed(proof, nowMs);
    if (isReplay) return this.#refuse(request, nowMs, unauthenticated("invalid_dpop_proof", "replay"));
    if (!isAgain) this.sawPlace(request, false, nowMs);
    const dead = this.#options.control.deadReason(nowMs);
    if (dead !== null) return this.#refuse(request, nowMs, unauthenticated("invalid_token", dead));
    if (grant.expiresAtMs <= nowMs) return this.#refuse(request, nowMs, unauthenticated("invalid_token", "expired"));
    if (denial !== null) return this.#refuse(request, nowMs, denial);
    if (call === null) return this.#refuse(request, nowMs, absent("describe", "no call"));
    if (this.#options.control.hasClosed(call.upstream))
      return this.#refuse(request, nowMs, absent("switch", "a switch of this upstream"));
    const permits = this.#options.control.ceilings.permitsOf(enrolment, call);
    if (!permits.ok) return this.#refuse(request, nowMs, permits.error);
    const asked = this.#options.approvals.look(request, call, nowMs);
    if (asked.kind === "refused") return this.#refuse(request, nowMs, asked.denial);
    this.#options.calls.giveUpSilent(nowMs);
    const { open, usage } = this.#options.ledger.state;
    const { config } = this.#options.deployment();
    const units = unitsOf(config, call);
    const leadBytes = config.transcripts.streamLeadBytes;
    const places = { running: this.#options.calls.runningAt(nowMs), waiting: this.#quotaWaits.calls };
    const wanted = { ...places, bytes: bytesSent(sent), leadBytes, units, nowMs };
    const reserved = reserve(usage, this.#options.family.limits(enrolment), wanted);
    if (!reserved.ok) return this.#refuse(request, nowMs, reserved.denial);
    if (this.#options.ledger.isFull) return refused(unavailable("the log is full: R2 can't be written"));
    if (asked.kind === "wanted") return this.#holdBack(request, call, asked, nowMs, isClaim);
    const untoldBytes = leadBytesOf(config, call.upstream);
    const about = { upstream: call.upstream, units, bytes: bytesSent(sent) + untoldBytes };
    const shared = wantedOf(config.quotas, enrolment, about);
    const uncovered = this.#options.shares.uncovered(shared, nowMs);
    if (uncovered.length > 0) {
      const hasRoom = this.#quotaWaits.hasRoom(sent.body.length);
      const denial = verdict ?? (hasRoom ? null : unavailable("too much waits for shared limits"));
      return denial === null ? { uncovered } : this.#refuse(request, nowMs, denial);
    }

    const { aheadBytes } = reserved;
    const seq = this.#options.ledger.nextSeq();
    const body = requestBody(sent, seq);
    const approved = asked.kind === "approved" ? this.#options.approvals.use(asked.id, seq, nowMs) : {};
    this.#options.ledger.change({ open: [...open, seq] });
    this.#options.ledger.holdAhead(seq, reserved.usage, aheadBytes);
    const tickets = this.#options.shares.take(shared, untoldBytes, nowMs);
    const runBytes = sent.bodyFollows ? sent.body.length : 0;
    if (runBytes > 0 || countingBytes(tickets).length > 0) this.#options.ledger.countPassing(seq, runBytes, tickets);
    this.#options.ledger.record(
      "call",
      nowMs,
      callFields(request, call.upstream, body.reference, permits.value, { units, approved }),
      {
        deployment: request.deployment,
        grant: grant.id,
        jti: jtiOf(proof),
        body: body.piece,
      },
    );
    const lease = new Lease(this.#options.calls, seq, call, body.writer, grant.id, { units, tickets, aheadBytes });
    this.#options.calls.leases.set(seq, lease);
    this.#options.control.saw({ kind: "admitted", bytes: bytesSent(sent) }, nowMs);
    const isTold = request.delegation !== undefined || statesDelegation(config.upstreams[call.upstream]!);
    const facts = isTold ? { delegation: delegationFacts(enrolment) } : {};
    const taken = tickets.length === 0 ? {} : { tickets };
    return { admitted: true, seq, lease, aheadBytes, limits: this.#limitState(nowMs), ...facts, ...taken };
  }

  #limitState(nowMs: number): LimitState {
    const { enrolment, state } = this.#options.ledger;
    const { task } = enrolment!;
    return limitStateOf(state.usage, this.#options.family.limits(enrolment!), {
      running: this.#options.calls.runningAt(nowMs),
      deadlineMs: task.deadlineMs,
      nowMs,
    });
  }

  /** A person is asked, once for each call. What is pending is no refusal that rules count: the agent did nothing wrong. */
  #holdBack(
    request: AdmitRequest,
    call: Call,
    gate: Extract<Gate, { readonly kind: "wanted" }>,
    nowMs: number,
    isClaim: boolean,
  ): AdmitRefusal {
    let id = gate.known;
    if (id === null && !this.#options.approvals.isFull) {
      const { deployment, grant, proof } = request;
      const beside = { deployment, grant: grant.id, jti: jtiOf(proof) };
      id = this.#options.approvals.ask(request, call, gate, beside, nowMs);
    } else this.#options.refused.record(request, nowMs, this.#options.approvals.pending(id));
    const refusal = refused(this.#options.approvals.pending(id));
    const untilMs = Math.min(request.grant.expiresAtMs, this.#options.ledger.enrolment!.task.deadlineMs);
    const waitMs = Math.min(gate.demand.waitMs, untilMs - nowMs);
    if (id === null || isClaim || waitMs <= 0 || this.#options.approvals.waits.size >= MAX_WAITING) return refusal;
    // From here on, whether or not its Worker asks: a place among those that wait is taken.
    const waiting = this.#options.approvals.waits.wait(id, waitMs);
    const ticket = new CallTicket(
      // Whose time ran out with its grant or its task is answered as any call after that.
      async () => (await waiting) || Date.now() >= untilMs,
      () => this.admit(request, true),
    );
    return { ...refusal, ticket };
  }

  /** Why a call could not be admitted whatever a person says. */
  whyNever(call: Call, nowMs: number): string | null {
    const dead = this.#options.control.deadReason(nowMs);
    if (dead !== null) return dead;
    if (this.#options.control.hasClosed(call.upstream)) return "a switch of this upstream";
    const permits = this.#options.control.ceilings.permitsOf(this.#options.ledger.enrolment!, call);
    return permits.ok ? null : "not within the ceilings";
  }

  /** INVARIANT: synchronous, and before the call is admitted: of two copies nobody knows which one asks. */
  sawPlace(request: AdmitRequest | RenewRequest, isRenewal: boolean, nowMs: number): void {
    if (this.#options.control.deadReason(nowMs) !== null) return;
    const hit = this.#copies.saw(request, isRenewal, nowMs);
    if (hit === null) return;
    if (hit.fields !== null) this.#options.ledger.record("signal", nowMs, hit.fields);
    this.#options.control.saw({ kind: "second-copy" }, nowMs);
  }

  #refuse(request: AdmitRequest, nowMs: number, denial: Denial): AdmitRefusal {
    this.#options.refused.record(request, nowMs, denial);
    this.#options.control.saw({ kind: "refused", denial }, nowMs);
    const isLimit = denial.kind === "limited" || denial.kind === "exhausted";
    return isLimit ? { ...refused(denial), limits: this.#limitState(nowMs) } : refused(denial);
  }

  isReplayed({ jti, issuedAtMs }: ProofMark, nowMs: number): boolean {
    return !isFresh(issuedAtMs, nowMs) || this.#options.ledger.log.hasSeen(jti);
  }
}

/** A rule may have made the recorded body shorter or longer than the one that passes. */
const bytesSent = ({ body, redaction }: RecordedRequest): number => redaction?.body?.trueBytes ?? body.length;

/** About what a request takes of this object's memory. */
const bytesHeld = ({ body, target, headers }: RecordedRequest): number =>
  headers.reduce((sum, [name, value]) => sum + name.length + value.length, REQUEST_BYTES + target.length + body.length);

/** Shared limits that no lease covers yet. */
interface Uncovered {
  readonly uncovered: readonly Wanted[];
}

const refused = (denial: Denial): AdmitRefusal => ({ admitted: false, denial });
