import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { DecideAnswer, DecideRequest } from "../src/approval/contract.ts";
import type { CloseAnswer } from "../src/control/acknowledgement.ts";
import type { Opening } from "../src/control/contract.ts";
import type { Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { isFresh } from "../src/grant/proof.ts";
import type { Spent } from "../src/instance/carve.ts";
import type {
  Admission,
  AdmitRequest,
  AgentInstanceCalls,
  EnrolAnswer,
  Enrolment,
  EnrolRequest,
  ErasedBodies,
  IntrospectAnswer,
  RenewAnswer,
  RenewRequest,
  ResumeRequest,
  Resumption,
  UnstoredBody,
  UnstoredLines,
} from "../src/instance/contract.ts";
import type {
  DelegateAnswer,
  DelegateRequest,
  EndAnswer,
  EndChildAnswer,
  EndChildRequest,
} from "../src/instance/family.ts";
import { unused } from "../src/instance/limits.ts";
import type { ShareReport } from "../src/quota/contract.ts";
import type { Call } from "../src/scope/call.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import type { RawPart } from "../src/transcript/layout.ts";
import { Admitter } from "./admitter.ts";
import { Approvals } from "./approvals.ts";
import { wholeBody } from "./bodies.ts";
import { Family } from "./family.ts";
import { InstanceAlarm } from "./instance-alarm.ts";
import { InstanceControl } from "./instance-control.ts";
import { enrolledFields } from "./instance-fields.ts";
import { INSTANCE_SHAPES, readTotals } from "./instance-shapes.ts";
import { Kept } from "./kept.ts";
import { Ledger } from "./ledger.ts";
import { Orphans } from "./orphans.ts";
import { jtiOf } from "./proof-mark.ts";
import { RefusedCalls } from "./refused-calls.ts";
import { Resumer } from "./resumer.ts";
import { RuleWatch } from "./rule-watch.ts";
import { RunningCalls } from "./running-calls.ts";
import { InstanceShares } from "./shares.ts";
import { Wake } from "./wake.ts";

/** One running copy of an agent: the only writer of its transcript, and the only place where its calls are admitted. */
export class AgentInstance extends DurableObject<Env> implements AgentInstanceCalls {
  readonly #ledger: Ledger;
  readonly #control: InstanceControl;
  readonly #watch: RuleWatch;
  readonly #family: Family;
  readonly #approvals: Approvals;
  readonly #shares: InstanceShares;
  readonly #wake: Wake;
  readonly #orphans: Orphans;
  readonly #calls: RunningCalls;
  readonly #refused: RefusedCalls;
  readonly #admitter: Admitter;
  readonly #resumer: Resumer;
  readonly #alarm: InstanceAlarm;
  #isEnrolling = false;
  #parsed: Deployment | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const deployment = () => this.#deployment;
    const wakeBy = (atMs: number) => this.#wake.by(atMs);
    const kept = new Kept(ctx.storage.sql, "AgentInstance", INSTANCE_SHAPES);
    this.#watch = new RuleWatch(ctx, kept, deployment, config.rules);
    const watch = this.#watch;
    this.#ledger = new Ledger({
      ctx,
      kept,
      readTotals,
      bucket: () => this.env.TRANSCRIPTS,
      deployment,
      wakeBy,
      beforeRecord: () => this.#control.keep(),
    });
    const ledger = () => this.#ledger;
    const orphans = () => this.#orphans;
    this.#refused = new RefusedCalls({ ledger, wakeBy });
    const limits = () => this.#family.limits(this.#ledger.enrolment!);
    this.#calls = new RunningCalls({
      ledger,
      control: () => this.#control,
      shares: () => this.#shares,
      orphans,
      limits,
      deployment,
    });
    const { leases } = this.#calls;
    this.#orphans = new Orphans({
      kept,
      ledger,
      bucket: () => this.env.TRANSCRIPTS,
      limits,
      deployment,
      wakeBy,
    });
    this.#family = new Family({
      kept,
      deployment,
      ledger,
      deadReason: (nowMs) => this.#control.deadReason(nowMs),
      running: (nowMs) => this.#calls.runningAt(nowMs),
      keep: () => this.#control.keep(),
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
      leases,
      wakeBy,
      orphans,
      approvals,
    });
    const whyNot = (call: Call, nowMs: number) => this.#admitter.whyNever(call, nowMs);
    this.#approvals = new Approvals({ ctx, kept, deployment, ledger, wakeBy, whyNot });
    this.#shares = new InstanceShares(ctx, deployment, ledger, leases, () => this.#orphans.hasAny);
    this.#shares.loseRunning(Date.now());
    this.#admitter = new Admitter({
      ledger: this.#ledger,
      control: this.#control,
      family: this.#family,
      approvals: this.#approvals,
      shares: this.#shares,
      calls: this.#calls,
      refused: this.#refused,
      deployment,
    });
    this.#resumer = new Resumer({
      ledger: this.#ledger,
      control: this.#control,
      shares: this.#shares,
      calls: this.#calls,
      orphans: this.#orphans,
    });
    this.#alarm = new InstanceAlarm({
      ledger: this.#ledger,
      control: this.#control,
      watch,
      family: this.#family,
      approvals: this.#approvals,
      shares: this.#shares,
      orphans: this.#orphans,
      calls: this.#calls,
      refused: this.#refused,
      wake: () => this.#wake,
    });
    this.#wake = new Wake(ctx, () => this.#alarm.dueAtMs());
    if (this.#ledger.enrolment !== null) this.#follow(this.#ledger.enrolment);
    this.#orphans.find(Date.now());
  }

  /** Where it is used, not in the constructor: a secret that is missing closes every door, and must not stop the alarms. */
  get #deployment(): Deployment {
    this.#parsed ??= parseDeployment(this.env, config);
    return this.#parsed;
  }

  #follow(enrolment: Enrolment): void {
    this.#refused.follow(enrolment.limits.refusalsRecordedPerMinute);
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
    if (this.#admitter.isReplayed(request.proof, nowMs)) return { renewed: false, reason: "replay" };
    if (enrolment.refreshDigest === null || enrolment.refreshDigest !== request.refreshDigest)
      return { renewed: false, reason: "refresh token" };
    this.#admitter.sawPlace(request, true, nowMs);
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
    this.#family.tend();
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
    if (this.#admitter.isReplayed(request.proof, nowMs)) return { delegated: false, refusal: { kind: "replay" } };
    return this.#family.delegate(request, jtiOf(request.proof), nowMs);
  }

  async confirmChild(child: string, grant: string): Promise<boolean> {
    return (await this.#control.isConfirmed()) && this.#family.confirm(child, grant, Date.now());
  }

  async disown(child: string, grant: string): Promise<void> {
    this.#family.disown(child, grant);
  }

  async endChild({ child, proof, grant, deployment }: EndChildRequest): Promise<EndChildAnswer> {
    const nowMs = Date.now();
    if (this.#admitter.isReplayed(proof, nowMs)) return "replay";
    return this.#family.endChild(child, { grant, deployment, jti: jtiOf(proof) }, nowMs);
  }

  async childEnded(child: string, spent: Spent, grant: string): Promise<true> {
    this.#family.ended(child, grant, spent, Date.now());
    return true;
  }

  async endAsChildOf(parent: string, deployment: string, grant: string): Promise<EndAnswer> {
    const { enrolment } = this.#ledger;
    if (enrolment === null) this.#family.bar();
    // A key that was enrolled before can't be enrolled by another delegation.
    if (enrolment?.ancestors.at(-1) !== parent || enrolment.grant !== grant) return "absent";
    await this.revoke("parent", deployment);
    return "ending";
  }

  // --- the gate's door --------------------------------------------------------------------------------------------

  /** Admits one call, or records its refusal. The answer leaves when the record is durable (output gate). */
  async admit(request: AdmitRequest): Promise<Admission> {
    return this.#admitter.admit(request, false);
  }

  async callStopped(seq: number): Promise<void> {
    this.#calls.stopped(seq);
    this.#orphans.confirm(seq, Date.now());
  }

  async resume(request: ResumeRequest): Promise<Resumption> {
    return this.#resumer.resume(request);
  }

  /** The desk's: a person has decided. */
  async decideApproval(id: string, request: DecideRequest): Promise<DecideAnswer> {
    if (this.#ledger.enrolment === null) return { kind: "unknown" };
    // What was switched a moment ago stands before it.
    this.#control.keep();
    return this.#approvals.decide(id, request, Date.now());
  }

  /** A quota's word, in one turn with what it voids. */
  async recall(quota: string): Promise<ShareReport | null> {
    return this.#ledger.enrolment === null ? null : this.#shares.recall(quota, Date.now());
  }

  // --- control ----------------------------------------------------------------------------------------------------

  async close(sw: Switch): Promise<CloseAnswer> {
    const answer = await this.#control.close(sw);
    this.#family.tend();
    return answer;
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

  /** Everything that time does. */
  override async alarm(): Promise<void> {
    await this.#alarm.ring();
  }
}
