import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { DecideAnswer, DecideRequest } from "../src/approval/contract.ts";
import { statesDelegation } from "../src/config/credential.ts";
import type { CloseAnswer } from "../src/control/acknowledgement.ts";
import type { Opening } from "../src/control/contract.ts";
import type { Switch } from "../src/control/switch.ts";
import { absent, type Denial, unauthenticated, unavailable } from "../src/denial.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { isFresh, PROOF_MAX_AGE_MS } from "../src/grant/proof.ts";
import { amountsOf, leadBytesOf, settledCharges, unitsOf } from "../src/instance/call-cost.ts";
import type { Spent } from "../src/instance/carve.ts";
import type {
  Admission,
  AdmitRefusal,
  AdmitRequest,
  AgentInstanceCalls,
  Cause,
  EnrolAnswer,
  Enrolment,
  EnrolRequest,
  ErasedBodies,
  IntrospectAnswer,
  LimitState,
  ProofMark,
  RecordedRequest,
  RenewAnswer,
  RenewRequest,
  Settlement,
  UnstoredBody,
  UnstoredLines,
} from "../src/instance/contract.ts";
import type { DelegateAnswer, DelegateRequest, EndAnswer } from "../src/instance/family.ts";
import { limitStateOf, reserve, unused } from "../src/instance/limits.ts";
import { chargesOf } from "../src/metering/charge.ts";
import type { ShareReport } from "../src/quota/contract.ts";
import { type Ticket, type Wanted, wantedOf } from "../src/quota/shares.ts";
import type { Call, Json } from "../src/scope/call.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import type { RawPart } from "../src/transcript/layout.ts";
import { Approvals, type Gate } from "./approvals.ts";
import { type Piece, requestBody, wholeBody } from "./bodies.ts";
import { Family } from "./family.ts";
import { InstanceControl } from "./instance-control.ts";
import {
  answerFields,
  callFields,
  delegationFacts,
  enrolledFields,
  lostFields,
  refusedFields,
} from "./instance-fields.ts";
import { Kept } from "./kept.ts";
import { type AnswerBody, Lease, type LeaseHost } from "./lease.ts";
import { Ledger } from "./ledger.ts";
import { RefusalCount } from "./refusal-count.ts";
import { RuleWatch } from "./rule-watch.ts";
import { SecondCopy } from "./second-copy.ts";
import { InstanceShares } from "./shares.ts";
import { CallTicket } from "./ticket.ts";
import { Wake } from "./wake.ts";

/** A Worker says something every five seconds while its call runs; one that was silent for this long is gone. */
const SILENT_MS = 20_000;
/** A `jti` is kept this much longer than any proof with it is accepted, against steps of the clock. */
const JTI_MARGIN_MS = 60_000;
/** So long a call waits for shared limits; below the gate's own patience. */
const QUOTA_PATIENCE_MS = 6_000;
/** A failed flush is tried again after this. */
const RETRY_MS = 5_000;
/** So many calls at most wait for a person in this object. Others are pending at once. */
const MAX_WAITING = 10;

/** One running copy of an agent: the only writer of its transcript, and the only place where its calls are admitted. */
export class AgentInstance extends DurableObject<Env> implements AgentInstanceCalls, LeaseHost {
  readonly #ledger: Ledger;
  readonly #control: InstanceControl;
  readonly #watch: RuleWatch;
  readonly #family: Family;
  readonly #approvals: Approvals;
  readonly #shares: InstanceShares;
  readonly #wake: Wake;
  readonly #leases = new Map<number, Lease>();
  readonly #copies = new SecondCopy();
  #refusals = new RefusalCount(0);
  #isEnrolling = false;
  /** Ended, and on the roster until every Worker that has confirmed nothing has surely cut by itself. */
  #leaveAtMs: number | null = null;
  #parsed: Deployment | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const deployment = () => this.#deployment;
    const wakeBy = (atMs: number) => this.#wake.by(atMs);
    const kept = new Kept(ctx.storage.sql);
    this.#watch = new RuleWatch(ctx, kept, deployment, config.rules);
    const watch = this.#watch;
    this.#ledger = new Ledger({
      ctx,
      kept,
      bucket: () => this.env.TRANSCRIPTS,
      deployment,
      wakeBy,
      beforeRecord: () => this.#control.keep(),
    });
    const ledger = () => this.#ledger;
    this.#family = new Family({
      kept,
      deployment,
      ledger,
      deadReason: (nowMs) => this.#control.deadReason(nowMs),
      running: () => this.#ledger.state.open.length,
      wakeBy,
      waitUntil: (work) => ctx.waitUntil(work),
    });
    const approvals = () => this.#approvals;
    this.#control = new InstanceControl({
      ctx,
      kept,
      deployment,
      ledger,
      watch,
      leases: this.#leases,
      wakeBy,
      approvals,
    });
    const whyNot = (call: Call, nowMs: number) => this.#whyNever(call, nowMs);
    this.#approvals = new Approvals({ ctx, kept, deployment, ledger, wakeBy, whyNot });
    this.#shares = new InstanceShares(ctx, deployment, ledger, this.#leases);
    this.#shares.begin(Date.now());
    // Whether it has left is not kept: to leave twice is nothing.
    if (this.#ledger.log.isClosed) this.#leaveAtMs = this.#ledger.state.orphaned?.untilMs ?? null;
    this.#wake = new Wake(ctx, () => this.#nextWakeMs());
    if (this.#ledger.enrolment !== null) this.#follow(this.#ledger.enrolment);
    try {
      this.#recordOrphans();
    } catch {
      // A secret is missing, and every door is closed. The alarm does it, or the object that the mended deployment starts.
    }
  }

  /** Where it is used, not in the constructor: a secret that is missing closes every door, and must not stop the alarms. */
  get #deployment(): Deployment {
    this.#parsed ??= parseDeployment(this.env, config);
    return this.#parsed;
  }

  #follow(enrolment: Enrolment): void {
    this.#refusals = new RefusalCount(enrolment.limits.refusalsRecordedPerMinute);
    this.#watch.follow(enrolment);
  }

  // --- the authority's door ---------------------------------------------------------------------------------------

  /** Binds this object to one key, task and human, once and for all. */
  async enrol(request: EnrolRequest): Promise<EnrolAnswer> {
    const { enrolment, proof } = request;
    if (this.#ledger.enrolment !== null || this.#isEnrolling || this.#family.isBarred)
      return { enrolled: false, reason: "key-enrolled" };
    if (!isFresh(proof.issuedAtMs, Date.now())) return { enrolled: false, reason: "replay" };
    // One at a time: what the roster knows of this key is what the winner said.
    this.#isEnrolling = true;
    const enlisted = await this.#control.enlist(enrolment).finally(() => {
      this.#isEnrolling = false;
    });
    if (enlisted.kind === "narrowed") return { enrolled: false, reason: "narrowed", groups: enlisted.groups };
    // Dying here leaves a member on the roster that never enrolled: it is listed, and can be killed.
    if (enlisted.kind !== "enlisted")
      return { enrolled: false, reason: enlisted.kind === "refused" ? "switched" : "unavailable" };
    // INVARIANT: synchronous from here. Of two that race with one key, the second finds the first.
    if (this.#ledger.enrolment !== null) return { enrolled: false, reason: "key-enrolled" };
    if (this.#family.isBarred) {
      this.ctx.waitUntil(this.#control.leave(enrolment));
      return { enrolled: false, reason: "key-enrolled" };
    }
    const nowMs = Date.now();
    const grantsExpireAtMs = nowMs + this.#deployment.config.grants.grantSeconds * 1000;
    const usage = unused(enrolment.limits, nowMs);
    this.#ledger.enrol(enrolment, { ...usage, tokens: request.tokens ?? usage.tokens }, grantsExpireAtMs);
    this.#follow(enrolment);
    const claims = new TextEncoder().encode(JSON.stringify(request.humanClaims));
    const { reference, run } = wholeBody(0, "claims", claims, "application/json", "identity");
    // Record 0, whatever was pushed meanwhile.
    this.#ledger.append("enrolled", nowMs, enrolledFields(enrolment, reference), {
      deployment: request.deployment,
      jti: jtiOf(proof),
      body: { run, raw: null },
    });
    this.#control.begin(enlisted);
    this.#wake.by(enrolment.task.deadlineMs);
    return { enrolled: true };
  }

  /** Gives the instance a new grant, for as long as its task lives. The caller has verified the key's proof. */
  async renew(request: RenewRequest): Promise<RenewAnswer> {
    if (!(await this.#control.isConfirmed())) return { renewed: false, reason: "unavailable" };
    const nowMs = Date.now();
    const dead = this.#control.deadReason(nowMs);
    const { enrolment, state } = this.#ledger;
    if (enrolment === null || dead !== null) return { renewed: false, reason: dead ?? "not enrolled" };
    if (this.#isReplayed(request.proof, nowMs)) return { renewed: false, reason: "replay" };
    if (enrolment.refreshDigest === null || enrolment.refreshDigest !== request.refreshDigest)
      return { renewed: false, reason: "refresh token" };
    this.#sawPlace(request, true, nowMs);
    const stopped = this.#control.deadReason(nowMs);
    if (stopped !== null) return { renewed: false, reason: stopped };
    this.#ledger.change({ grantsExpireAtMs: Math.max(state.grantsExpireAtMs, request.expiresAtMs) });
    const fields = { issued: request.grant, expires: request.expiresAtMs };
    this.#ledger.record("renewed", nowMs, fields, { deployment: request.deployment, jti: jtiOf(request.proof) });
    return { renewed: true, enrolment };
  }

  /** Revocation by the platform or by the instance itself (RFC 7009): permissions evaporate at once, running calls included. */
  async revoke(by: string, deployment: string): Promise<CloseAnswer | null> {
    const { enrolment, state, log } = this.#ledger;
    if (enrolment === null) return null;
    if (state.stopped === null && !log.isClosed) {
      this.#ledger.change({ stopped: "revoked" });
      this.#ledger.record("switched", Date.now(), { act: "revoke", reach: "instance", by }, { deployment });
      this.#approvals.cancel(Date.now());
      this.#wake.by(this.#ledger.endsAtMs);
    }
    this.#family.tend();
    const cut = await this.#control.cutAll("ended");
    // Who has not confirmed stays within reach of a switch: until its transcript ends, a receipt counts it.
    if (cut.unconfirmed === 0) this.ctx.waitUntil(this.#control.leave(enrolment));
    return cut;
  }

  async introspect(): Promise<IntrospectAnswer> {
    const isKnown = await this.#control.isConfirmed();
    const { enrolment } = this.#ledger;
    const lives = enrolment !== null && this.#control.deadReason(Date.now()) === null;
    const groups = enrolment === null ? [] : this.#control.ceilings.groupsOf(enrolment);
    return { state: !lives ? "inactive" : isKnown ? "active" : "unknown", enrolment, groups };
  }

  // --- sub-agents -------------------------------------------------------------------------------------------------

  async delegate(request: DelegateRequest): Promise<DelegateAnswer> {
    if (!(await this.#control.isConfirmed())) return { delegated: false, refusal: { kind: "unavailable" } };
    const nowMs = Date.now();
    if (this.#isReplayed(request.proof, nowMs)) return { delegated: false, refusal: { kind: "replay" } };
    return this.#family.delegate(request, jtiOf(request.proof), nowMs);
  }

  async confirmChild(child: string, grant: string): Promise<boolean> {
    return (await this.#control.isConfirmed()) && this.#family.confirm(child, grant, Date.now());
  }

  async disown(child: string, grant: string): Promise<void> {
    this.#family.disown(child, grant);
  }

  async childEnded(child: string, spent: Spent): Promise<true> {
    this.#family.ended(child, spent, Date.now());
    return true;
  }

  async endAsChildOf(parent: string, deployment: string): Promise<EndAnswer> {
    const { enrolment } = this.#ledger;
    if (enrolment === null) this.#family.bar();
    if (enrolment?.ancestors.at(-1) !== parent) return "absent";
    await this.revoke("parent", deployment);
    return "ending";
  }

  // --- the gate's door --------------------------------------------------------------------------------------------

  /** Admits one call, or records its refusal. The answer leaves when the record is durable (output gate). */
  async admit(request: AdmitRequest): Promise<Admission> {
    return this.#admit(request, false);
  }

  async #admit(request: AdmitRequest, isClaim: boolean): Promise<Admission> {
    const untilMs = Date.now() + QUOTA_PATIENCE_MS;
    for (let verdict: Denial | null = null; ; ) {
      if (!(await this.#control.isConfirmed())) return refused(unavailable("no confirmation from the roster"));
      const nowMs = Date.now();
      if (nowMs >= untilMs) verdict ??= unavailable("the shared limits did not answer in time");
      const admission = this.#admitNow(request, nowMs, verdict, isClaim);
      if ("admitted" in admission) return admission;
      // Dying here, nothing is on record, and nothing of a lease was used.
      verdict = await this.#shares.extend(admission.uncovered);
    }
  }

  /**
   * INVARIANT: synchronous. Between the first check and the record nothing can interleave. Order: what depends on the
   * credentials alone (replay, switches, the task's end), what the steps before found, ceilings, approval, limits, shared limits
   * last: no other is asked for a call that is refused here.
   * @param verdict of the quotas that were asked; null: they were not, or it is to be looked at again
   * @param isClaim of a call that has waited for a person: its proof was held against replay when it came
   */
  #admitNow(request: AdmitRequest, nowMs: number, verdict: Denial | null, isClaim: boolean): Admission | Uncovered {
    const { enrolment, state, log } = this.#ledger;
    if (enrolment === null) return refused(unauthenticated("invalid_token", "no such instance"));
    if (log.isClosed) return refused(unauthenticated("invalid_token", "the transcript has ended"));
    const { proof, grant, call, denial, request: sent } = request;
    if (!isClaim && this.#isReplayed(proof, nowMs))
      return this.#refuse(request, nowMs, unauthenticated("invalid_dpop_proof", "replay"));
    if (!isClaim) this.#sawPlace(request, false, nowMs);
    const dead = this.#control.deadReason(nowMs);
    if (dead !== null) return this.#refuse(request, nowMs, unauthenticated("invalid_token", dead));
    if (grant.expiresAtMs <= nowMs) return this.#refuse(request, nowMs, unauthenticated("invalid_token", "expired"));
    if (denial !== null) return this.#refuse(request, nowMs, denial);
    if (call === null) return this.#refuse(request, nowMs, absent("describe", "no call"));
    if (this.#control.hasClosed(call.upstream))
      return this.#refuse(request, nowMs, absent("switch", "a switch of this upstream"));
    const permits = this.#control.ceilings.permitsOf(enrolment, call);
    if (!permits.ok) return this.#refuse(request, nowMs, permits.error);
    const asked = this.#approvals.look(request, call, nowMs);
    if (asked.kind === "refused") return this.#refuse(request, nowMs, asked.denial);
    this.#giveUpSilent(nowMs);
    const { open } = this.#ledger.state;
    const units = unitsOf(this.#deployment.config, call);
    const wanted = { running: open.length, bytes: bytesSent(sent), units, nowMs };
    const reserved = reserve(state.usage, this.#family.limits(enrolment), wanted);
    if (!reserved.ok) return this.#refuse(request, nowMs, reserved.denial);
    if (this.#ledger.isFull) return refused(unavailable("the log is full: R2 can't be written"));
    if (asked.kind === "wanted") return this.#holdBack(request, call, asked, nowMs, isClaim);
    const leadBytes = leadBytesOf(this.#deployment.config, call.upstream);
    const about = { upstream: call.upstream, units, bytes: bytesSent(sent) + leadBytes };
    const shared = wantedOf(this.#deployment.config.quotas, enrolment, about);
    const uncovered = this.#shares.uncovered(shared, nowMs);
    if (uncovered.length > 0) return verdict === null ? { uncovered } : this.#refuse(request, nowMs, verdict);

    const seq = this.#ledger.nextSeq();
    const body = requestBody(sent, seq);
    const approved = asked.kind === "approved" ? this.#approvals.use(asked.id, seq, nowMs) : {};
    this.#ledger.change({ usage: reserved.usage, open: [...open, seq] });
    const tickets = this.#shares.take(shared, leadBytes, nowMs);
    const counting = countingBytes(tickets);
    const runBytes = sent.bodyFollows ? sent.body.length : 0;
    if (runBytes > 0 || counting.length > 0) this.#ledger.countPassing(seq, runBytes, counting);
    this.#ledger.record(
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
    const lease = new Lease(this, seq, call, body.writer, grant.id, { units, tickets });
    this.#leases.set(seq, lease);
    this.#control.saw({ kind: "admitted", bytes: bytesSent(sent) }, nowMs);
    const isTold =
      request.delegation !== undefined ||
      statesDelegation(this.#deployment.config.upstreams[call.upstream]!.credential);
    const facts = isTold ? { delegation: delegationFacts(enrolment) } : {};
    return { admitted: true, seq, lease, limits: this.#limitState(nowMs), ...facts };
  }

  #limitState(nowMs: number): LimitState {
    const { enrolment, state } = this.#ledger;
    const { task } = enrolment!;
    return limitStateOf(state.usage, this.#family.limits(enrolment!), {
      running: state.open.length,
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
    if (id === null && !this.#approvals.isFull) {
      const { deployment, grant, proof } = request;
      const beside = { deployment, grant: grant.id, jti: jtiOf(proof) };
      id = this.#approvals.ask(request, call, gate, beside, nowMs);
    } else this.#recordRefusal(request, nowMs, this.#approvals.pending(id));
    const refusal = refused(this.#approvals.pending(id));
    const untilMs = Math.min(request.grant.expiresAtMs, this.#ledger.enrolment!.task.deadlineMs);
    const waitMs = Math.min(gate.demand.waitMs, untilMs - nowMs);
    if (id === null || isClaim || waitMs <= 0 || this.#approvals.waits.size >= MAX_WAITING) return refusal;
    // From here on, whether or not its Worker asks: a place among those that wait is taken.
    const waiting = this.#approvals.waits.wait(id, waitMs);
    const ticket = new CallTicket(
      // Whose time ran out with its grant or its task is answered as any call after that.
      async () => (await waiting) || Date.now() >= untilMs,
      () => this.#admit(request, true),
    );
    return { ...refusal, ticket };
  }

  /** Why a call could not be admitted whatever a person says. */
  #whyNever(call: Call, nowMs: number): string | null {
    const dead = this.#control.deadReason(nowMs);
    if (dead !== null) return dead;
    if (this.#control.hasClosed(call.upstream)) return "a switch of this upstream";
    const permits = this.#control.ceilings.permitsOf(this.#ledger.enrolment!, call);
    return permits.ok ? null : "not within the ceilings";
  }

  /** The desk's: a person has decided. */
  async decideApproval(id: string, request: DecideRequest): Promise<DecideAnswer> {
    if (this.#ledger.enrolment === null) return { kind: "unknown" };
    // What was switched a moment ago stands before it.
    this.#control.keep();
    return this.#approvals.decide(id, request, Date.now());
  }

  /** INVARIANT: synchronous, and before the call is admitted: of two copies nobody knows which one asks. */
  #sawPlace(request: AdmitRequest | RenewRequest, isRenewal: boolean, nowMs: number): void {
    if (this.#control.deadReason(nowMs) !== null) return;
    const hit = this.#copies.saw(request, isRenewal, nowMs);
    if (hit === null) return;
    if (hit.fields !== null) this.#ledger.record("signal", nowMs, hit.fields);
    this.#control.saw({ kind: "second-copy" }, nowMs);
  }

  #refuse(request: AdmitRequest, nowMs: number, denial: Denial): AdmitRefusal {
    this.#recordRefusal(request, nowMs, denial);
    this.#control.saw({ kind: "refused", denial }, nowMs);
    const isLimit = denial.kind === "limited" || denial.kind === "exhausted";
    return isLimit ? { ...refused(denial), limits: this.#limitState(nowMs) } : refused(denial);
  }

  #recordRefusal(request: AdmitRequest, nowMs: number, denial: Denial): void {
    this.#recordCounted(nowMs, false);
    const jti = jtiOf(request.proof);
    // A replayed `jti` is known already, for at least as long as it would be from now on.
    const isNew = !this.#ledger.log.hasSeen(jti.id);
    if (!this.#refusals.mayRecord(nowMs)) {
      if (isNew) this.#ledger.log.remember(jti.id, jti.untilMs);
      this.#wake.by(this.#refusals.dueAtMs ?? nowMs);
      return;
    }
    const body = requestBody({ ...request.request, bodyFollows: false }, this.#ledger.nextSeq());
    const sent = request.request.bodyFollows ? unfinished(body.reference) : body.reference;
    this.#ledger.record("refused", nowMs, refusedFields(request, denial, sent), {
      deployment: request.deployment,
      grant: request.grant.id,
      ...(isNew ? { jti } : {}),
      body: body.piece,
    });
  }

  #recordCounted(nowMs: number, force: boolean): void {
    const counted = this.#refusals.takeCounted(nowMs, force);
    if (counted !== null) this.#ledger.record("refused", nowMs, { counted: counted.counted, minute: counted.minuteMs });
  }

  #isReplayed({ jti, issuedAtMs }: ProofMark, nowMs: number): boolean {
    return !isFresh(issuedAtMs, nowMs) || this.#ledger.log.hasSeen(jti);
  }

  // --- leases -----------------------------------------------------------------------------------------------------

  async confirm(lease: Lease): Promise<void> {
    if (!(await this.#control.isConfirmedRunning())) lease.break("unconfirmed");
    // The alarm says so to all at once; it may be late, where it waits for R2.
    else if (Date.now() >= this.#ledger.enrolment!.task.deadlineMs) lease.break("expired");
  }

  appendPiece(lease: Lease, piece: Piece, bytes: number): Cause | null {
    this.#ledger.appendBody(piece);
    const usage = this.#ledger.countBytes(bytes);
    this.#shares.count(lease.taken.tickets, bytes);
    this.#ledger.countPassing(lease.seq, bytes, countingBytes(lease.taken.tickets));
    this.#control.saw({ kind: "passed", bytes }, Date.now());
    if (usage.bytes > this.#family.limits(this.#ledger.enrolment!).bytes) return "budget";
    return this.#ledger.isFull ? "log-full" : null;
  }

  async pace(lease: Lease): Promise<void> {
    await this.#ledger.pace();
    if (!(await this.#shares.extendBytes(lease.taken.tickets))) lease.break("budget");
  }

  recordAnswer(lease: Lease, settlement: Settlement, answer: AnswerBody): void {
    const bytes = settlement.redaction?.body?.trueBytes ?? settlement.tail.length;
    this.#ledger.countBytes(bytes);
    const { units, tickets } = lease.taken;
    const charges = settledCharges(units, settlement);
    const cost = amountsOf(charges);
    this.#ledger.chargeUnits(units, cost);
    this.#shares.count(tickets, bytes);
    this.#shares.settle(tickets, cost);
    if (lease.switchId !== null) this.#ledger.countCut(lease.switchId);
    const beside = { grant: lease.grant, ...(answer.tail === null ? {} : { body: answer.tail }) };
    this.#ledger.recordAnswer(lease.seq, Date.now(), answerFields(lease, settlement, answer, charges), beside);
    // It is over, and on record as it was: what this trips cuts other calls.
    this.release(lease);
    const { outcome, head } = settlement;
    this.#control.saw({ kind: "answered", bytes, outcome, status: head?.status ?? null }, Date.now());
  }

  recordLost(lease: Lease): void {
    if (this.#ledger.log.isClosed) return;
    const { units, tickets } = lease.taken;
    const lead = this.#deployment.config.transcripts.streamLeadBytes;
    const fields = lostFields(lease, lead, chargesOf(units, null));
    this.#shares.settle(tickets, null);
    this.#ledger.recordAnswer(lease.seq, Date.now(), fields, { grant: lease.grant });
  }

  release(lease: Lease): void {
    this.#leases.delete(lease.seq);
  }

  /** A Worker that died without a word holds no place: its call is recorded as lost, and what it may still say is refused. */
  #giveUpSilent(nowMs: number): void {
    for (const lease of [...this.#leases.values()]) if (lease.heardAtMs < nowMs - SILENT_MS) lease.abandon();
  }

  /** A quota's word, in one turn with what it voids. */
  async recall(quota: string): Promise<ShareReport | null> {
    return this.#ledger.enrolment === null ? null : this.#shares.recall(quota, Date.now());
  }

  // --- control ----------------------------------------------------------------------------------------------------

  async close(sw: Switch): Promise<CloseAnswer> {
    return this.#control.close(sw);
  }

  async reopen(id: string, opening: Pick<Opening, "by" | "reason"> | null): Promise<void> {
    this.#control.reopen(id, opening);
  }

  // --- the transcript ---------------------------------------------------------------------------------------------

  async read(fromSeq: number, maxLines: number): Promise<UnstoredLines | null> {
    if (this.#ledger.enrolment === null) return null;
    this.#control.keep();
    return { partition: this.#ledger.partition, lines: this.#ledger.log.unstoredLines(fromSeq, maxLines) };
  }

  /** Bodies that have not left, and those whose tables wait for their proofs' windows. What is sealed leaves first, by the alarm. */
  async erase(beforeMs: number): Promise<ErasedBodies | "later" | null> {
    if (this.#ledger.enrolment === null) return null;
    this.#approvals.erase(beforeMs, Date.now());
    const erased = this.#ledger.eraseBodies(beforeMs);
    if (erased === "later") this.#wake.by(Date.now());
    return erased;
  }

  async readBody(seq: number, part: BodyPart): Promise<UnstoredBody | null> {
    return this.#ledger.enrolment === null ? null : this.#ledger.readBody(seq, part);
  }

  async readRaw(seq: number, part: RawPart, no: number): Promise<Uint8Array | null> {
    return this.#ledger.readRaw(seq, part, no);
  }

  /** Everything that time does: the sealed end, lost calls, segments to R2, tables dropped. Runs again from the start after any failure. */
  override async alarm(): Promise<void> {
    this.#wake.rang();
    const { enrolment } = this.#ledger;
    if (enrolment === null) return;
    try {
      this.#recordOrphans();
      this.#watch.handOver();
      this.#family.tend();
      this.#approvals.settle(Date.now());
      this.#approvals.handOver();
      const isOver = !this.#ledger.log.isClosed && Date.now() >= this.#ledger.endsAtMs;
      const cut = isOver ? await this.#control.cutAll("expired") : null;
      if (!isOver) this.#giveUpSilent(Date.now());
      // What R2 must be read for comes behind what may not wait for it, and where it can't be read, only the end waits.
      const unread = await this.#ledger.recordLargeOrphans().catch((error: unknown) => ({ error }));
      if (cut !== null && !this.#ledger.hasLargeOrphans) await this.#end(enrolment, cut.unconfirmed);
      await this.#leaveIfDue(enrolment, Date.now());
      this.#family.tend();
      if (!this.#ledger.log.isClosed) this.#recordCounted(Date.now(), false);
      this.#ledger.sealIfDue(Date.now());
      await this.#ledger.store();
      if (unread !== undefined) throw unread.error;
      const next = this.#nextWakeMs();
      if (next !== null) this.#wake.by(next);
    } catch (error) {
      // Nothing is lost: rows stay until a put is confirmed. Retries of the platform are finite, so this arms its own.
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wake.by(Date.now() + RETRY_MS);
    }
  }

  /** The last calls are cut and answered before the end is written, and what was closed while nobody called is on record. */
  async #end(enrolment: Enrolment, unconfirmed: number): Promise<void> {
    // Who has not confirmed may still pass bytes: it stays within reach of a switch, whose receipt counts it.
    if (unconfirmed === 0) await this.#control.leave(enrolment);
    else await this.#control.learn(enrolment);
    if (this.#ledger.log.isClosed) return;
    const nowMs = Date.now();
    this.#ledger.countOrphans(this.#leases.size, nowMs);
    for (const lease of this.#leases.values()) lease.abandon();
    this.#recordCounted(nowMs, true);
    this.#approvals.cancel(nowMs, "the transcript ended");
    this.#ledger.end(nowMs);
    if (unconfirmed > 0) this.#leaveAtMs = this.#ledger.state.orphaned?.untilMs ?? nowMs;
  }

  async #leaveIfDue(enrolment: Enrolment, nowMs: number): Promise<void> {
    if (this.#leaveAtMs === null || nowMs < this.#leaveAtMs) return;
    this.#leaveAtMs = null;
    await this.#control.leave(enrolment);
  }

  #recordOrphans(): void {
    this.#ledger.recordOrphans((seq) => this.#leases.has(seq), Date.now());
  }

  /** When there is something to do next; null for who never enrolled, or has nothing left. */
  #nextWakeMs(): number | null {
    if (this.#ledger.enrolment === null) return null;
    const nowMs = Date.now();
    try {
      const others = [
        this.#ledger.log.isClosed ? null : this.#refusals.dueAtMs,
        this.#leases.size === 0 ? null : nowMs + SILENT_MS,
        this.#watch.dueAtMs(nowMs),
        this.#approvals.dueAtMs(nowMs),
        this.#leaveAtMs,
        this.#family.dueAtMs(nowMs),
      ].filter((time) => time !== null);
      const times = [...this.#ledger.wakeTimes(nowMs), ...others];
      return times.length === 0 ? null : Math.min(...times);
    } catch {
      return nowMs + RETRY_MS;
    }
  }
}

/** Of a refused call whose body was longer than its first run, nobody has read the rest. */
const unfinished = (reference: Json): Json => ({ ...(reference as unknown as BodyReference), complete: false });

/** A rule may have made the recorded body shorter or longer than the one that passes. */
const bytesSent = ({ body, redaction }: RecordedRequest): number => redaction?.body?.trueBytes ?? body.length;

const countingBytes = (tickets: readonly Ticket[]): readonly string[] =>
  tickets.flatMap(({ name, need }) => (Object.hasOwn(need, "bytes") ? [name] : []));

/** Shared limits that no lease covers yet. */
interface Uncovered {
  readonly uncovered: readonly Wanted[];
}

const refused = (denial: Denial): AdmitRefusal => ({ admitted: false, denial });

const jtiOf = ({ jti, issuedAtMs }: ProofMark): { id: string; untilMs: number } => ({
  id: jti,
  untilMs: issuedAtMs + PROOF_MAX_AGE_MS + JTI_MARGIN_MS,
});
