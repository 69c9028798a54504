import { DurableObject } from "cloudflare:workers";
import config from "#config";
import { type CloseAnswer, SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type { ConfirmAnswer } from "../src/control/contract.ts";
import type { InstanceEvent } from "../src/control/signals.ts";
import { closes, isWhole, refusesNewcomer, type Switch, switchFields } from "../src/control/switch.ts";
import { absent, type Denial, unauthenticated, unavailable } from "../src/denial.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { isFresh, PROOF_MAX_AGE_MS } from "../src/grant/proof.ts";
import { ceilingsOf, exceeds } from "../src/instance/ceilings.ts";
import type {
  Admission,
  AdmitRefusal,
  AdmitRequest,
  AgentInstanceCalls,
  Cause,
  EnrolAnswer,
  Enrolment,
  EnrolRequest,
  IntrospectAnswer,
  ProofMark,
  RenewAnswer,
  RenewRequest,
  Settlement,
  UnstoredLines,
} from "../src/instance/contract.ts";
import { reserve, type Usage, unused } from "../src/instance/limits.ts";
import { rosterOf } from "../src/objects.ts";
import type { Json } from "../src/scope/call.ts";
import type { Layer } from "../src/scope/decide.ts";
import type { BodyReference, Fields, RecordType } from "../src/transcript/envelope.ts";
import { instancePartition } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";
import { durableReference, requestBody, wholeBody } from "./bodies.ts";
import { ClosedSwitches } from "./closed-switches.ts";
import { Confirmation, ROSTER_ANSWER_MS } from "./confirmation.ts";
import { Cut } from "./cut.ts";
import {
  answerFields,
  attributesOf,
  callFields,
  enrolledFields,
  identityFields,
  lostFields,
  orphanFields,
  refusedFields,
} from "./instance-fields.ts";
import { type AnswerBody, Lease, type LeaseHost } from "./lease.ts";
import { RefusalCount } from "./refusal-count.ts";
import { RuleWatch } from "./rule-watch.ts";
import { type BodyRun, TranscriptLog } from "./transcript-log.ts";
import { Wake } from "./wake.ts";

type JsonRow = { json: string };

const SCHEMA = "CREATE TABLE IF NOT EXISTS enrolment (id INTEGER PRIMARY KEY CHECK (id = 0), json TEXT NOT NULL)";

/** The running totals. Every record carries them, so that they are as durable as what they count. */
interface State {
  readonly usage: Usage;
  /** `seq` of calls without an answer, ascending. */
  readonly open: readonly number[];
  /** The last moment at which any grant given out so far is valid. */
  readonly grantsExpireAtMs: number;
  /** Set once; from then on nothing is admitted. */
  readonly stopped: "revoked" | "switched" | null;
  /** Calls that a switch has cut, and whose Worker has confirmed it, by the switch's id. */
  readonly cuts?: Readonly<Record<string, number>>;
  /** Calls that died with an earlier life of this object: their Workers cut by themselves until then, and confirm it to nobody. */
  readonly orphaned?: { readonly calls: number; readonly untilMs: number };
}

/** What shares a record's row. */
interface Beside {
  readonly grant?: string;
  readonly jti?: { readonly id: string; readonly untilMs: number };
  readonly body?: BodyRun;
}

const NEW: State = {
  usage: { calls: 0, bytes: 0, tokens: 0, tokensAtMs: 0 },
  open: [],
  grantsExpireAtMs: 0,
  stopped: null,
};

/** How long a Worker has to confirm a cut before the instance answers without it. */
const CUT_CONFIRM_MS = 5_000;
/** A Worker says something every five seconds while its call runs; one that was silent for this long is gone. */
const SILENT_MS = 20_000;
/** A `jti` is kept this much longer than any proof with it is accepted, against steps of the clock. */
const JTI_MARGIN_MS = 60_000;
/** A switch that cuts nothing is on record after this. */
const KEEP_AFTER_MS = 250;
/** Who is paused asks at most so often whether it still is. */
const PAUSE_RECHECK_MS = 1_000;
/** A failed flush is tried again after this. */
const RETRY_MS = 5_000;

/** One running copy of an agent: the only writer of its transcript, and the only place where its calls are admitted. */
export class AgentInstance extends DurableObject<Env> implements AgentInstanceCalls, LeaseHost {
  readonly #log: TranscriptLog;
  readonly #wake: Wake;
  readonly #confirmation: Confirmation;
  readonly #leases = new Map<number, Lease>();
  readonly #switches: ClosedSwitches;
  readonly #watch: RuleWatch;
  readonly #cuts = new Map<string, Cut>();
  #enrolment: Enrolment | null;
  #state: State;
  #refusals: RefusalCount;
  #ceilings: readonly Layer[] | null = null;
  #isEnrolling = false;
  #parsed: Deployment | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    ctx.storage.sql.exec(SCHEMA);
    this.#switches = new ClosedSwitches(ctx.storage.sql);
    this.#watch = new RuleWatch(ctx, () => this.#deployment, config.rules);
    this.#log = new TranscriptLog(ctx.storage);
    this.#state = (this.#log.state as State | undefined) ?? NEW;
    this.#wake = new Wake(ctx, () => this.#nextWakeMs());
    this.#confirmation = new Confirmation(
      () => this.#deployment,
      () => this.#onConfirmation(),
    );
    this.#refusals = new RefusalCount(0);
    this.#enrolment = null;
    const [enrolment] = ctx.storage.sql.exec<JsonRow>("SELECT json FROM enrolment").toArray();
    if (enrolment !== undefined) this.#become(JSON.parse(enrolment.json) as Enrolment);
    try {
      this.#recordOrphans(Date.now());
    } catch {
      // A secret is missing, and every door is closed. The alarm does it, or the object that the mended deployment starts.
    }
  }

  /** Where it is used, not in the constructor: a secret that is missing closes every door, and must not stop the alarms. */
  get #deployment(): Deployment {
    this.#parsed ??= parseDeployment(this.env, config);
    return this.#parsed;
  }

  #become(enrolment: Enrolment): void {
    this.#enrolment = enrolment;
    this.#refusals = new RefusalCount(enrolment.limits.refusalsRecordedPerMinute);
    this.#watch.follow(enrolment);
  }

  // --- the authority's door ---------------------------------------------------------------------------------------

  /** Binds this object to one key, task and human, once and for all. */
  async enrol(request: EnrolRequest): Promise<EnrolAnswer> {
    const { enrolment, proof } = request;
    if (this.#enrolment !== null || this.#isEnrolling) return { enrolled: false, reason: "key-enrolled" };
    if (!isFresh(proof.issuedAtMs, Date.now())) return { enrolled: false, reason: "replay" };
    const sentAtMs = Date.now();
    const pausesBefore = this.#switches.pauses;
    // One at a time: what the roster knows of this key is what the winner said.
    this.#isEnrolling = true;
    const enlisting = rosterOf(this.#deployment, enrolment.rosterShard).enlist(attributesOf(enrolment));
    const enlisted = (await within(ROSTER_ANSWER_MS, enlisting).catch(() => undefined)) ?? undefined;
    this.#isEnrolling = false;
    // Dying here leaves a member on the roster that never enrolled: it is listed, and can be killed.
    if (enlisted === undefined) return { enrolled: false, reason: "unavailable" };
    // A pause that was pushed to an enrolment that broke off, and resumed since.
    this.#reopenUnnamed(pausesBefore, enlisted.closed);
    if (!enlisted.enlisted || this.#switches.closed.some(refusesNewcomer))
      return { enrolled: false, reason: "switched" };
    // INVARIANT: synchronous from here. Of two that race with one key, the second finds the first.
    if (this.#enrolment !== null) return { enrolled: false, reason: "key-enrolled" };
    const nowMs = Date.now();
    this.ctx.storage.sql.exec("INSERT INTO enrolment (id, json) VALUES (0, ?)", JSON.stringify(enrolment));
    this.#become(enrolment);
    this.#confirmation.extend(sentAtMs, enlisted.validMs);
    const grantsExpireAtMs = nowMs + this.#deployment.config.grants.grantSeconds * 1000;
    this.#state = { ...NEW, usage: unused(enrolment.limits, nowMs), grantsExpireAtMs };
    const claims = new TextEncoder().encode(JSON.stringify(request.humanClaims));
    const { reference, run } = wholeBody(0, "claims", claims, "application/json", "identity");
    this.#record("enrolled", request.deployment, nowMs, enrolledFields(enrolment, reference), {
      jti: jtiOf(proof),
      body: run,
    });
    // Of one upstream alone: anything else keeps a newcomer out.
    for (const sw of enlisted.closed) this.#takeSwitch(sw);
    this.#keepSwitches();
    this.#wake.by(enrolment.task.deadlineMs);
    return { enrolled: true };
  }

  /** Gives the instance a new grant, for as long as its task lives. The caller has verified the key's proof. */
  async renew(request: RenewRequest): Promise<RenewAnswer> {
    if (!(await this.#isConfirmed())) return { renewed: false, reason: "unavailable" };
    const nowMs = Date.now();
    const dead = this.#deadReason(nowMs);
    const enrolment = this.#enrolment;
    if (enrolment === null || dead !== null) return { renewed: false, reason: dead ?? "not enrolled" };
    if (this.#isReplayed(request.proof, nowMs)) return { renewed: false, reason: "replay" };
    if (enrolment.refreshDigest === null || enrolment.refreshDigest !== request.refreshDigest)
      return { renewed: false, reason: "refresh token" };
    this.#state = { ...this.#state, grantsExpireAtMs: Math.max(this.#state.grantsExpireAtMs, request.expiresAtMs) };
    const fields = { issued: request.grant, expires: request.expiresAtMs };
    this.#record("renewed", request.deployment, nowMs, fields, { jti: jtiOf(request.proof) });
    return { renewed: true, enrolment };
  }

  /** Revocation by the platform or by the instance itself (RFC 7009): permissions evaporate at once, running calls included. */
  async revoke(by: string, deployment: string): Promise<CloseAnswer | null> {
    if (this.#enrolment === null) return null;
    if (this.#state.stopped === null && !this.#log.isClosed) {
      this.#state = { ...this.#state, stopped: "revoked" };
      this.#record("switched", deployment, Date.now(), { act: "revoke", reach: "instance", by });
      this.#wake.by(this.#endsAtMs());
    }
    const cut = await this.#cutAll("ended");
    // Who has not confirmed stays within reach of a switch: until its transcript ends, a receipt counts it.
    if (cut.unconfirmed === 0) this.ctx.waitUntil(this.#leaveRoster());
    return cut;
  }

  /** Who admits nothing any more needs no confirmation. Returns the switches that it has not been told of, where the roster can be asked. */
  async #leaveRoster(): Promise<readonly Switch[]> {
    const { instance, rosterShard } = this.#enrolment!;
    const leaving = rosterOf(this.#deployment, rosterShard).leave(instance);
    return (await within(ROSTER_ANSWER_MS, leaving).catch(() => undefined)) ?? [];
  }

  async introspect(): Promise<IntrospectAnswer> {
    const isKnown = await this.#isConfirmed();
    const lives = this.#enrolment !== null && this.#deadReason(Date.now()) === null;
    return { state: !lives ? "inactive" : isKnown ? "active" : "unknown", enrolment: this.#enrolment };
  }

  // --- the gate's door --------------------------------------------------------------------------------------------

  /** Admits one call, or records its refusal. The answer leaves when the record is durable (output gate). */
  async admit(request: AdmitRequest): Promise<Admission> {
    if (!(await this.#isConfirmed())) return refused(unavailable("no confirmation from the roster"));
    return this.#admitNow(request, Date.now());
  }

  /**
   * INVARIANT: synchronous. Between the first check and the record nothing can interleave. Order: what depends on the
   * credentials alone (replay, switches, the task's end), what the steps before found, ceilings, limits.
   */
  #admitNow(request: AdmitRequest, nowMs: number): Admission {
    const enrolment = this.#enrolment;
    if (enrolment === null) return refused(unauthenticated("invalid_token", "no such instance"));
    if (this.#log.isClosed) return refused(unauthenticated("invalid_token", "the transcript has ended"));
    const { proof, grant, call, denial, request: sent } = request;
    if (this.#isReplayed(proof, nowMs))
      return this.#refuse(request, nowMs, unauthenticated("invalid_dpop_proof", "replay"));
    const dead = this.#deadReason(nowMs);
    if (dead !== null) return this.#refuse(request, nowMs, unauthenticated("invalid_token", dead));
    if (grant.expiresAtMs <= nowMs) return this.#refuse(request, nowMs, unauthenticated("invalid_token", "expired"));
    if (denial !== null) return this.#refuse(request, nowMs, denial);
    if (call === null) return this.#refuse(request, nowMs, absent("describe", "no call"));
    if (this.#switches.hasClosed(call.upstream))
      return this.#refuse(request, nowMs, absent("switch", "a switch of this upstream"));
    this.#ceilings ??= ceilingsOf(this.#deployment.config, enrolment);
    const exceeding = exceeds(this.#ceilings, call);
    if (exceeding !== null) return this.#refuse(request, nowMs, exceeding);
    this.#giveUpSilent(nowMs);
    const { usage, open } = this.#state;
    const reserved = reserve(usage, enrolment.limits, { running: open.length, bytes: sent.body.length, nowMs });
    if (!reserved.ok) return this.#refuse(request, nowMs, reserved.denial);
    if (this.#log.heldBytes > this.#deployment.config.transcripts.maxHeldBytes)
      return refused(unavailable("the log is full: R2 can't be written"));

    const seq = this.#log.nextSeq;
    const body = requestBody(sent, seq);
    this.#state = { ...this.#state, usage: reserved.usage, open: [...open, seq] };
    this.#record("call", request.deployment, nowMs, callFields(call.upstream, sent, body.reference), {
      grant: grant.id,
      jti: jtiOf(proof),
      ...(body.run === null ? {} : { body: body.run }),
    });
    const lease = new Lease(this, seq, call.upstream, body.writer);
    this.#leases.set(seq, lease);
    this.#saw({ kind: "admitted", bytes: sent.body.length }, nowMs);
    return { admitted: true, seq, lease };
  }

  #refuse(request: AdmitRequest, nowMs: number, denial: Denial): AdmitRefusal {
    this.#recordRefusal(request, nowMs, denial);
    this.#saw({ kind: "refused", denial }, nowMs);
    return refused(denial);
  }

  #recordRefusal(request: AdmitRequest, nowMs: number, denial: Denial): void {
    this.#recordCounted(nowMs, false);
    const jti = jtiOf(request.proof);
    // A replayed `jti` is known already, for at least as long as it would be from now on.
    const isNew = !this.#log.hasSeen(jti.id);
    if (!this.#refusals.mayRecord(nowMs)) {
      if (isNew) this.#log.remember(jti.id, jti.untilMs);
      this.#wake.by(this.#refusals.dueAtMs ?? nowMs);
      return;
    }
    const body = requestBody({ ...request.request, bodyFollows: false }, this.#log.nextSeq);
    this.#record("refused", request.deployment, nowMs, refusedFields(request, denial, body.reference), {
      grant: request.grant.id,
      ...(isNew ? { jti } : {}),
      ...(body.run === null ? {} : { body: body.run }),
    });
  }

  #recordCounted(nowMs: number, force: boolean): void {
    const counted = this.#refusals.takeCounted(nowMs, force);
    if (counted !== null)
      this.#record("refused", this.#deployment.version, nowMs, { counted: counted.counted, minute: counted.minuteMs });
  }

  #isReplayed({ jti, issuedAtMs }: ProofMark, nowMs: number): boolean {
    return !isFresh(issuedAtMs, nowMs) || this.#log.hasSeen(jti);
  }

  // --- leases -----------------------------------------------------------------------------------------------------

  async confirm(lease: Lease): Promise<void> {
    if (!(await this.#isConfirmed())) lease.break("unconfirmed");
  }

  appendRun(run: BodyRun): Cause | null {
    this.#log.appendBody(run);
    const usage = { ...this.#state.usage, bytes: this.#state.usage.bytes + run.bytes.length };
    this.#state = { ...this.#state, usage };
    this.#saw({ kind: "passed", bytes: run.bytes.length }, Date.now());
    return usage.bytes > this.#enrolment!.limits.bytes ? "budget" : null;
  }

  recordAnswer(lease: Lease, settlement: Settlement, answer: AnswerBody): void {
    const { usage } = this.#state;
    this.#state = { ...this.#state, usage: { ...usage, bytes: usage.bytes + settlement.tail.length } };
    this.#countCut(lease);
    this.#close(lease.seq);
    const body = answer.tail === null ? {} : { body: answer.tail };
    this.#record("answer", this.#deployment.version, Date.now(), answerFields(lease, settlement, answer), body);
    // It is over, and on record as it was: what this trips cuts other calls.
    this.release(lease);
    const { outcome, head, tail } = settlement;
    this.#saw({ kind: "answered", bytes: tail.length, outcome, status: head?.status ?? null }, Date.now());
  }

  /** In the running totals: as durable as the record of the call that was cut. */
  #countCut({ switchId }: Lease): void {
    if (switchId === null) return;
    const { cuts = {} } = this.#state;
    this.#state = { ...this.#state, cuts: { ...cuts, [switchId]: (cuts[switchId] ?? 0) + 1 } };
  }

  recordLost(lease: Lease): void {
    if (this.#log.isClosed) return;
    this.#close(lease.seq);
    const fields = lostFields(lease, this.#deployment.config.transcripts.streamLeadBytes);
    this.#record("answer", this.#deployment.version, Date.now(), fields);
  }

  release(lease: Lease): void {
    this.#leases.delete(lease.seq);
  }

  #close(call: number): void {
    this.#state = { ...this.#state, open: this.#state.open.filter((seq) => seq !== call) };
  }

  /** A Worker that died without a word holds no place: its call is recorded as lost, and what it may still say is refused. */
  #giveUpSilent(nowMs: number): void {
    for (const lease of [...this.#leases.values()]) if (lease.heardAtMs < nowMs - SILENT_MS) lease.abandon();
  }

  /** Breaks every lease and waits until each Worker has confirmed, within bounds. */
  async #cutAll(cause: Cause): Promise<CloseAnswer> {
    const cut = new Cut([...this.#leases.values()], cause, null);
    await within(CUT_CONFIRM_MS, cut.done);
    return cut.answer(Date.now());
  }

  // --- control ----------------------------------------------------------------------------------------------------

  /** A switch in whose reach this instance is. Answers when the running calls in its reach are cut; asked again, how far that is. */
  async close(sw: Switch): Promise<CloseAnswer> {
    const cut = this.#takeSwitch(sw);
    await within(CUT_CONFIRM_MS, cut.done);
    const nowMs = Date.now();
    const answer = cut.answer(nowMs);
    const { calls, untilMs } = this.#state.orphaned ?? { calls: 0, untilMs: 0 };
    const orphaned = nowMs < untilMs ? calls : 0;
    // What nobody confirmed is over when its time is, and not before.
    const acknowledgedAgeMs = Math.min(answer.acknowledgedAgeMs, Math.max(0, nowMs - untilMs));
    // As counted on record: what was confirmed before this object was reset is in it.
    const confirmed = this.#state.cuts?.[sw.id] ?? 0;
    return { ...answer, acknowledgedAgeMs, cut: confirmed, unconfirmed: answer.unconfirmed + orphaned };
  }

  /** INVARIANT: synchronous. From here on nothing in its reach is admitted, and the Workers of what runs are told. */
  #takeSwitch(sw: Switch): Cut {
    const known = this.#cuts.get(sw.id);
    if (known !== undefined) return known;
    const isNew = this.#switches.take(sw);
    const leases = isNew ? [...this.#leases.values()].filter(({ upstream }) => closes(sw, upstream)) : [];
    const cut = new Cut(leases, isWhole(sw) ? "switched" : "upstream-switched", sw.id);
    this.#cuts.set(sw.id, cut);
    // A kill is final, whatever becomes of its switch.
    if (sw.act === "kill" && isWhole(sw)) this.#state = { ...this.#state, stopped: this.#state.stopped ?? "switched" };
    // With the next record, and that is soon: what the Workers say. Nobody waits for a write before they are told.
    if (isNew) setTimeout(() => this.#keepSwitches(), KEEP_AFTER_MS);
    return cut;
  }

  /** Dying before this, the object that starts anew hears of them from the roster. */
  #keepSwitches(): void {
    if (this.#enrolment === null || this.#log.isClosed) return;
    for (const sw of this.#switches.keep()) {
      this.#append("switched", this.#deployment.version, Date.now(), switchFields(sw), {});
      this.#wake.by(this.#endsAtMs());
    }
  }

  /** INVARIANT: synchronous. What trips a rule, its record, and the stop that the rule makes of it are one commit. */
  #saw(event: InstanceEvent, nowMs: number): void {
    if (this.#log.isClosed || this.#deadReason(nowMs) !== null) return;
    for (const { fields, sw } of this.#watch.saw(event, nowMs)) {
      this.#record("signal", this.#deployment.version, nowMs, fields);
      if (sw === null) continue;
      this.#takeSwitch(sw);
      // No roster has this one yet, so it can't be left for a moment later.
      this.#keepSwitches();
      this.#wake.by(this.#watch.dueAtMs(nowMs) ?? nowMs);
      this.#watch.handOver();
    }
  }

  async reopen(id: string): Promise<void> {
    const sw = this.#switches.open(id);
    if (sw === undefined || this.#enrolment === null || this.#log.isClosed) return;
    this.#record("switched", this.#deployment.version, Date.now(), { ...switchFields(sw), act: "resume" });
  }

  /**
   * What the roster says in a confirmation is a switch like one that it pushed. A pause that this object knew before it
   * asked, and that the roster does not name any more, was resumed.
   */
  #onConfirmation(): (answer: ConfirmAnswer) => void {
    const before = this.#switches.pauses.filter(({ id }) => !this.#watch.isHandingOver(id));
    return ({ confirmed, closed }) => {
      for (const sw of closed) this.#takeSwitch(sw);
      // Who is refused and in reach of nothing is unknown there: that says nothing of a pause.
      if (confirmed || closed.length > 0) this.#reopenUnnamed(before, closed);
    };
  }

  #reopenUnnamed(before: readonly Switch[], closed: readonly Switch[]): void {
    for (const { id } of before) if (!closed.some((sw) => sw.id === id)) void this.reopen(id);
  }

  /** Why no call can be admitted any more; null while the instance lives. */
  #deadReason(nowMs: number): string | null {
    if (this.#state.stopped !== null) return this.#state.stopped;
    if (this.#switches.hasWhole) return "switched";
    if (this.#enrolment !== null && this.#enrolment.task.deadlineMs <= nowMs) return "the task is over";
    return null;
  }

  /** Whether this object may admit. Who is not enrolled, or stopped for good, needs no roster to be refused. */
  async #isConfirmed(): Promise<boolean> {
    const enrolment = this.#enrolment;
    const nowMs = Date.now();
    if (enrolment === null) return true;
    await this.#askWhetherPaused(enrolment, nowMs);
    if (this.#deadReason(nowMs) !== null) return true;
    if (this.#confirmation.holds(enrolment, nowMs, (work) => this.ctx.waitUntil(work))) return true;
    return (await this.#confirmation.ask(enrolment)) || this.#deadReason(Date.now()) !== null;
  }

  /** The word that a pause is over may have been lost. Where it closes everything it is waited for, else it comes beside. */
  async #askWhetherPaused(enrolment: Enrolment, nowMs: number): Promise<void> {
    if (this.#state.stopped !== null || this.#switches.pauses.length === 0) return;
    if (nowMs < this.#confirmation.askedAtMs + PAUSE_RECHECK_MS) return;
    const asking = this.#confirmation.ask(enrolment);
    if (this.#switches.hasWhole) await asking;
    else this.ctx.waitUntil(asking);
  }

  // --- the transcript ---------------------------------------------------------------------------------------------

  async read(fromSeq: number, maxLines: number): Promise<UnstoredLines | null> {
    if (this.#enrolment === null) return null;
    return { partition: this.#partition(), lines: this.#log.unstoredLines(fromSeq, maxLines) };
  }

  /** Everything that time does: the sealed end, lost calls, segments to R2, tables dropped. Runs again from the start after any failure. */
  override async alarm(): Promise<void> {
    this.#wake.rang();
    if (this.#enrolment === null) return;
    try {
      this.#recordOrphans(Date.now());
      this.#watch.handOver();
      if (!this.#log.isClosed && Date.now() >= this.#endsAtMs()) {
        // The last calls are cut and answered before the end is written, and what was closed while nobody called is on record.
        await this.#cutAll("expired");
        for (const sw of await this.#leaveRoster()) this.#takeSwitch(sw);
        this.#end(Date.now());
      }
      this.#giveUpSilent(Date.now());
      this.#sealIfDue(Date.now());
      await this.#log.store(this.env.TRANSCRIPTS, this.#partition());
      this.#log.drop(Date.now(), this.#state.open[0] ?? null);
      const next = this.#nextWakeMs();
      if (next !== null) this.#wake.by(next);
    } catch (error) {
      // Nothing is lost: rows stay until a put is confirmed. Retries of the platform are finite, so this arms its own.
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wake.by(Date.now() + RETRY_MS);
    }
  }

  #sealIfDue(nowMs: number): void {
    if (this.#log.isClosed) return;
    this.#recordCounted(nowMs, false);
    const { flushAfterMs, flushAfterBytes } = this.#deployment.config.transcripts;
    const { oldestAtMs, openBytes } = this.#log;
    if (oldestAtMs === null || (nowMs < oldestAtMs + flushAfterMs && openBytes < flushAfterBytes)) return;
    this.#log.seal(this.#sealing(), false, nowMs);
  }

  /** When the transcript ends: at the deadline; once stopped, when the last grant has run out and no more attempt can be authentic. */
  #endsAtMs(): number {
    const { deadlineMs } = this.#enrolment!.task;
    return this.#state.stopped === null ? deadlineMs : Math.min(deadlineMs, this.#state.grantsExpireAtMs + 1_000);
  }

  #end(nowMs: number): void {
    if (this.#log.isClosed) return;
    for (const lease of this.#leases.values()) lease.abandon();
    this.#recordCounted(nowMs, true);
    const { calls, bytes } = this.#state.usage;
    this.#record("ended", this.#deployment.version, nowMs, { cause: this.#state.stopped ?? "deadline", calls, bytes });
    this.#log.seal(this.#sealing(), true, nowMs);
  }

  /** Calls that ran when this object was reset: their Workers have lost their leases, and stop. */
  #recordOrphans(nowMs: number): void {
    if (this.#log.isClosed) return;
    const orphans = this.#state.open.filter((seq) => !this.#leases.has(seq));
    if (orphans.length === 0) return;
    const { streamLeadBytes } = this.#deployment.config.transcripts;
    // Durable with the records: another reset must not make them look confirmed.
    const { calls, untilMs } = this.#state.orphaned ?? { calls: 0, untilMs: 0 };
    const earlier = nowMs < untilMs ? calls : 0;
    const orphaned = { calls: earlier + orphans.length, untilMs: nowMs + SILENT_WORKER_CUT_MS };
    this.#state = { ...this.#state, orphaned };
    for (const seq of orphans) {
      this.#close(seq);
      const body = durableReference(this.#log.bodyRuns(seq, "answer"), streamLeadBytes);
      // A body that came in runs has no digest in its call's record: it is stated here, as far as it came.
      const sent = this.#log.recordOf(seq)?.["body"] as BodyReference | null | undefined;
      const inRuns = sent?.digest === null;
      const requestBody = inRuns ? durableReference(this.#log.bodyRuns(seq, "request"), 0, sent) : null;
      this.#record("answer", this.#deployment.version, nowMs, orphanFields(seq, body, requestBody));
    }
  }

  /** What was closed before stands before it. */
  #record(type: RecordType, deployment: string, nowMs: number, fields: Fields, more: Beside = {}): void {
    this.#keepSwitches();
    this.#append(type, deployment, nowMs, fields, more);
  }

  #append(type: RecordType, deployment: string, nowMs: number, fields: Fields, more: Beside): void {
    const { grant, ...row } = more;
    const enrolment = this.#enrolment!;
    const identity = identityFields(enrolment, grant ?? enrolment.grant, deployment);
    const state = this.#state as unknown as Json;
    try {
      this.#log.append({ type, fields: { ...identity, ...fields }, state, nowMs, ...row });
    } catch (error) {
      // The totals in memory are ahead of what is stored, and storage is the truth: begin anew from it.
      this.ctx.abort("a record could not be written");
      throw error;
    }
    const { flushAfterMs, flushAfterBytes } = this.#deployment.config.transcripts;
    this.#wake.by(this.#log.openBytes >= flushAfterBytes ? nowMs : nowMs + flushAfterMs);
  }

  #partition(): string {
    const { instance, human, task } = this.#enrolment!;
    return instancePartition({ human, task: task.id, instance });
  }

  #sealing() {
    const { config, sealKeys } = this.#deployment;
    return { issuer: config.origin, log: this.#enrolment!.instance, sealKeys };
  }

  /** When there is something to do next; null for who never enrolled, or has nothing left. */
  #nextWakeMs(): number | null {
    if (this.#enrolment === null) return null;
    const { oldestAtMs, isClosed } = this.#log;
    try {
      const times = [
        oldestAtMs === null ? null : oldestAtMs + this.#deployment.config.transcripts.flushAfterMs,
        this.#log.hasUnstored ? Date.now() : null,
        this.#log.dropAtMs(this.#state.open[0] ?? null),
        isClosed ? null : this.#endsAtMs(),
        isClosed ? null : this.#refusals.dueAtMs,
        this.#leases.size === 0 ? null : Date.now() + SILENT_MS,
        this.#watch.dueAtMs(Date.now()),
      ].filter((time) => time !== null);
      return times.length === 0 ? null : Math.min(...times);
    } catch {
      return Date.now() + RETRY_MS;
    }
  }
}

const refused = (denial: Denial): AdmitRefusal => ({ admitted: false, denial });

const jtiOf = ({ jti, issuedAtMs }: ProofMark): { id: string; untilMs: number } => ({
  id: jti,
  untilMs: issuedAtMs + PROOF_MAX_AGE_MS + JTI_MARGIN_MS,
});
