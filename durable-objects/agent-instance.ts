import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { ConfirmAnswer, EnlistAnswer } from "../src/control/contract.ts";
import type { Attributes, CloseAnswer, Switch } from "../src/control/switch.ts";
import { switchFields } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { absent, type Denial, unauthenticated, unavailable } from "../src/gate/denial.ts";
import { isFresh, PROOF_MAX_AGE_MS } from "../src/grant/proof.ts";
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
  RenewAnswer,
  RenewRequest,
  Settlement,
  UnstoredLines,
} from "../src/instance/contract.ts";
import { reserve, type Usage, unused } from "../src/instance/limits.ts";
import { rosterOf } from "../src/objects.ts";
import type { Call, Json } from "../src/scope/call.ts";
import { decide, type Layer as ScopeLayer } from "../src/scope/decide.ts";
import { type Fields, sha256Hex } from "../src/transcript/envelope.ts";
import { instancePartition } from "../src/transcript/layout.ts";
import { type AnswerBody, BodyWriter, Lease, type LeaseHost, wholeBody } from "./lease.ts";
import { type BodyRun, type LogOptions, TranscriptLog } from "./transcript-log.ts";

type EnrolmentRow = { json: string };
type SwitchRow = { json: string };

const SCHEMA = [
  "CREATE TABLE IF NOT EXISTS enrolment (id INTEGER PRIMARY KEY CHECK (id = 0), json TEXT NOT NULL)",
  "CREATE TABLE IF NOT EXISTS switches (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID",
];

/** The running totals that every record carries. */
interface State {
  readonly usage: Usage;
  /** `seq` of calls without an answer. */
  readonly open: readonly number[];
  /** The last moment at which any grant given out so far is valid. */
  readonly grantsExpireAtMs: number;
  /** Set once; from then on nothing is admitted. */
  readonly stopped: "revoked" | "switched" | null;
}

/** How long a Worker has to confirm a cut before the instance answers without it. */
const CUT_CONFIRM_MS = 5_000;
/** After a restart, how long a call without a lease may stay without an outcome. */
const ORPHAN_GRACE_MS = 2_000;
/** A `jti` is kept this much longer than any proof with it is accepted, against steps of the clock. */
const JTI_MARGIN_MS = 60_000;
/** A failed flush is tried again after this. */
const RETRY_MS = 5_000;

/** One running copy of an agent: the only writer of its transcript, and the only place where its calls are admitted. */
export class AgentInstance extends DurableObject<Env> implements AgentInstanceCalls, LeaseHost {
  readonly #deployment: Deployment;
  readonly #log: TranscriptLog;
  readonly #leases = new Map<number, Lease>();
  #enrolment: Enrolment | null;
  #switches: Switch[];
  #state: State;
  #confirmedUntilMs = 0;
  #confirming: Promise<boolean> | null = null;
  #refusals = { minute: 0, recorded: 0, counted: 0 };
  #alarmAtMs: number | null = null;
  readonly #startedAtMs = Date.now();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#deployment = parseDeployment(env, config);
    for (const statement of SCHEMA) ctx.storage.sql.exec(statement);
    const row = ctx.storage.sql.exec<EnrolmentRow>("SELECT json FROM enrolment").toArray()[0];
    this.#enrolment = row === undefined ? null : (JSON.parse(row.json) as Enrolment);
    this.#switches = ctx.storage.sql
      .exec<SwitchRow>("SELECT json FROM switches")
      .toArray()
      .map(({ json }) => JSON.parse(json) as Switch);
    this.#log = new TranscriptLog(ctx.storage);
    this.#state = (this.#log.state as State | undefined) ?? {
      usage: { calls: 0, bytes: 0, tokens: 0, tokensAtMs: 0 },
      open: [],
      grantsExpireAtMs: 0,
      stopped: null,
    };
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmAtMs = await ctx.storage.getAlarm();
      if (this.#state.open.length > 0) this.#wakeBy(Date.now() + ORPHAN_GRACE_MS);
    });
  }

  // --- the authority's door ---------------------------------------------------------------------------------------

  /** Binds this object to one key, task and human, once and for all. */
  async enrol(request: EnrolRequest): Promise<EnrolAnswer> {
    const { enrolment } = request;
    if (this.#enrolment !== null) return { enrolled: false, reason: "key-enrolled" };
    const attributes = attributesOf(enrolment, upstreamsOf(enrolment));
    let enlisted: EnlistAnswer;
    const sentAtMs = Date.now();
    try {
      // Dying here leaves a member on the roster that never enrolled: it is listed, and can be killed.
      enlisted = await rosterOf(this.#deployment).enlist(attributes);
    } catch {
      return { enrolled: false, reason: "unavailable" };
    }
    if (enlisted.closed.length > 0 || this.#switches.length > 0) return { enrolled: false, reason: "switched" };
    // One synchronous block from here: of two that race with one key, the second finds the first.
    if (this.#enrolment !== null) return { enrolled: false, reason: "key-enrolled" };
    const nowMs = Date.now();
    this.#enrolment = enrolment;
    this.ctx.storage.sql.exec("INSERT INTO enrolment (id, json) VALUES (0, ?)", JSON.stringify(enrolment));
    this.#confirmedUntilMs = sentAtMs + enlisted.validMs;
    this.#state = {
      usage: unused(enrolment.limits, nowMs),
      open: [],
      grantsExpireAtMs: nowMs + this.#deployment.config.grants.grantSeconds * 1000,
      stopped: null,
    };
    const claims = new TextEncoder().encode(JSON.stringify(request.humanClaims));
    const body = wholeBody(0, "claims", claims, "application/json", "identity");
    this.#record("enrolled", request.deployment, nowMs, {
      fields: {
        manifest: { ...enrolment.manifest, tools: { ...enrolment.manifest.tools } },
        purpose: enrolment.task.purpose,
        deadline: enrolment.task.deadlineMs,
        scope: [...enrolment.scope],
        limits: { ...enrolment.limits },
        claims: { ...body.reference },
      },
      jti: this.#jti(request.proof),
      body: body.run,
    });
    this.#wakeBy(enrolment.task.deadlineMs);
    return { enrolled: true };
  }

  /** Gives the instance a new grant, for as long as its task lives. The caller has verified the key's proof. */
  async renew(request: RenewRequest): Promise<RenewAnswer> {
    const ready = await this.#ready();
    if (!ready) return { renewed: false, reason: "unavailable" };
    const nowMs = Date.now();
    const enrolment = this.#enrolment;
    const dead = this.#deadReason(nowMs);
    if (enrolment === null || dead !== null) return { renewed: false, reason: dead ?? "not enrolled" };
    if (!isFresh(request.proof.issuedAtMs, nowMs) || this.#log.hasSeen(request.proof.jti))
      return { renewed: false, reason: "replay" };
    if (enrolment.refreshDigest === null || enrolment.refreshDigest !== request.refreshDigest)
      return { renewed: false, reason: "refresh token" };
    this.#state = { ...this.#state, grantsExpireAtMs: Math.max(this.#state.grantsExpireAtMs, request.expiresAtMs) };
    this.#record("renewed", request.deployment, nowMs, {
      fields: { issued: request.grant, expires: request.expiresAtMs },
      jti: this.#jti(request.proof),
    });
    return { renewed: true, enrolment };
  }

  /** Revocation by the platform or by the instance itself (RFC 7009): permissions evaporate at once, running calls included. */
  async revoke(by: string, deployment: string): Promise<CloseAnswer | null> {
    if (this.#enrolment === null) return null;
    const nowMs = Date.now();
    if (this.#state.stopped === null && !this.#log.isClosed) {
      this.#state = { ...this.#state, stopped: "revoked" };
      this.#record("switched", deployment, nowMs, { fields: { act: "revoke", reach: "instance", by } });
      this.#wakeBy(this.#endsAtMs());
    }
    return this.#cutAll("ended");
  }

  async introspect(): Promise<IntrospectAnswer> {
    const active = (await this.#ready()) && this.#enrolment !== null && this.#deadReason(Date.now()) === null;
    return { active, enrolment: this.#enrolment, grantExpiresAtMs: this.#state.grantsExpireAtMs };
  }

  // --- the gate's door --------------------------------------------------------------------------------------------

  /**
   * Admits one call, or records its refusal: replay, switches, the task's end, what the steps before found, ceilings,
   * limits, and the durable record. The answer leaves when the record is durable (output gate).
   */
  async admit(request: AdmitRequest): Promise<Admission> {
    const ready = await this.#ready();
    if (!ready) return { admitted: false, denial: unavailable("no confirmation from the roster") };
    return this.#admitNow(request, Date.now());
  }

  /** INVARIANT: synchronous. Between the first check and the record nothing can interleave. */
  #admitNow(request: AdmitRequest, nowMs: number): Admission {
    const enrolment = this.#enrolment;
    if (enrolment === null) return refused(unauthenticated("invalid_token", "no such instance"));
    if (this.#log.isClosed) return refused(unauthenticated("invalid_token", "the transcript has ended"));
    const { proof, request: sent } = request;
    // Replay goes before everything, and depends on nothing but the credentials.
    if (!isFresh(proof.issuedAtMs, nowMs))
      return this.#refuse(request, nowMs, unauthenticated("invalid_dpop_proof", "iat"), false);
    if (this.#log.hasSeen(proof.jti))
      return this.#refuse(request, nowMs, unauthenticated("invalid_dpop_proof", "replay"), false);
    const dead = this.#deadReason(nowMs);
    if (dead !== null) return this.#refuse(request, nowMs, unauthenticated("invalid_token", dead), true);
    if (request.grant.expiresAtMs <= nowMs)
      return this.#refuse(request, nowMs, unauthenticated("invalid_token", "expired"), true);
    if (request.denial !== null) return this.#refuse(request, nowMs, request.denial, true);
    if (request.call === null) return this.#refuse(request, nowMs, absent("describe", "no call"), true);
    const ceiling = this.#ceiling(enrolment, request.call);
    if (ceiling !== null) return this.#refuse(request, nowMs, ceiling, true);
    const reserved = reserve(this.#state.usage, enrolment.limits, {
      running: this.#leases.size,
      bytes: sent.body.length,
      nowMs,
    });
    if (!reserved.ok) return this.#refuse(request, nowMs, reserved.denial, true);
    if (this.#log.heldBytes > this.#deployment.config.transcripts.maxHeldBytes)
      return refused(unavailable("the log is full: R2 can't be written"));

    const seq = this.#log.nextSeq;
    const mediaType = headerOf(sent.headers, "content-type");
    const coding = headerOf(sent.headers, "content-encoding") ?? "identity";
    let body: { reference: Json; run: BodyRun } | null = null;
    let writer: BodyWriter | null = null;
    if (sent.bodyFollows) {
      writer = new BodyWriter(seq, "request");
      body = {
        reference: { digest: null, bytes: null, mediaType, coding, complete: false },
        run: writer.next(sent.body),
      };
    } else if (sent.body.length > 0) {
      const whole = wholeBody(seq, "request", sent.body, mediaType, coding);
      body = { reference: { ...whole.reference }, run: whole.run };
    }
    this.#state = { ...this.#state, usage: reserved.usage, open: [...this.#state.open, seq] };
    this.#record("call", request.deployment, nowMs, {
      grant: request.grant.id,
      fields: {
        upstream: request.call.upstream,
        method: sent.method,
        target: sent.target,
        headers: sent.headers.map(([name, value]) => [name, value]),
        body: body?.reference ?? null,
        decision: { allowed: true, layer: "all" },
      },
      jti: this.#jti(proof),
      ...(body === null ? {} : { body: body.run }),
    });
    const lease = new Lease(this, seq, writer);
    this.#leases.set(seq, lease);
    return { admitted: true, seq, lease };
  }

  /** Ceilings as they are configured now: the human's entitlement, the agent's, the organisation's. */
  #ceiling(enrolment: Enrolment, call: Call): Denial | null {
    const { entitlements, agents, boundaries } = this.#deployment.config;
    const entitled = enrolment.groups.flatMap((group) =>
      Object.hasOwn(entitlements.groups, group) ? entitlements.groups[group]! : [],
    );
    const agent = Object.hasOwn(agents, enrolment.agent) ? agents[enrolment.agent]!.ceiling : [];
    const layers: ScopeLayer[] = [
      { name: "entitlement", entries: entitled },
      { name: "agent", entries: agent },
      { name: "boundaries", entries: boundaries },
    ];
    const decision = decide(layers, call);
    return decision.ok
      ? null
      : absent(decision.layer as "entitlement" | "agent" | "boundaries", "not within the ceiling");
  }

  /** Records a refusal, or counts it: beyond the configured number a minute they share one record, so that a loop can't buy rows. */
  #refuse(request: AdmitRequest, nowMs: number, denial: Denial, spendsProof: boolean): AdmitRefusal {
    const minute = Math.floor(nowMs / 60_000);
    if (this.#refusals.minute !== minute) {
      this.#flushCounted(request.deployment, nowMs);
      this.#refusals = { minute, recorded: 0, counted: 0 };
    }
    const jti = spendsProof ? this.#jti(request.proof) : null;
    if (this.#refusals.recorded >= this.#enrolment!.limits.refusalsRecordedPerMinute) {
      this.#refusals.counted++;
      if (jti !== null) this.#log.remember(jti.id, jti.untilMs);
      return refused(denial);
    }
    this.#refusals.recorded++;
    this.#record("refused", request.deployment, nowMs, {
      grant: request.grant.id,
      fields: {
        upstream: request.call?.upstream ?? null,
        method: request.request.method,
        target: request.request.target,
        headers: request.request.headers.map(([name, value]) => [name, value]),
        decision: { allowed: false, ...denial },
      },
      ...(jti === null ? {} : { jti }),
    });
    return refused(denial);
  }

  #flushCounted(deployment: string, nowMs: number): void {
    if (this.#refusals.counted === 0 || this.#log.isClosed) return;
    const { counted, minute } = this.#refusals;
    this.#refusals.counted = 0;
    this.#record("refused", deployment, nowMs, { fields: { counted, minute: minute * 60_000 } });
  }

  // --- leases -----------------------------------------------------------------------------------------------------

  appendRun(run: BodyRun): Cause | null {
    const enrolment = this.#enrolment!;
    this.#log.appendBody(run);
    const usage = { ...this.#state.usage, bytes: this.#state.usage.bytes + run.bytes.length };
    this.#state = { ...this.#state, usage };
    this.#wakeBy(Date.now() + this.#deployment.config.transcripts.flushAfterMs);
    return usage.bytes > enrolment.limits.bytes ? "budget" : null;
  }

  recordAnswer(lease: Lease, settlement: Settlement, answer: AnswerBody): void {
    const usage = { ...this.#state.usage, bytes: this.#state.usage.bytes + settlement.tail.length };
    this.#state = { ...this.#state, usage, open: this.#state.open.filter((seq) => seq !== lease.seq) };
    // A lease that broke while the last bytes were on their way here is a cut call, whatever the Worker thought.
    const outcome = settlement.outcome === "complete" && lease.cause !== null ? "cut" : settlement.outcome;
    this.#record("answer", this.#deployment.version, Date.now(), {
      fields: {
        call: lease.seq,
        outcome,
        ...(lease.cause === null ? {} : { cause: lease.cause }),
        ...(settlement.reason === null ? {} : { reason: settlement.reason }),
        status: settlement.head?.status ?? null,
        headers: settlement.head?.headers.map(([name, value]) => [name, value]) ?? [],
        body: answer.reference === null ? null : { ...answer.reference },
        ...this.#lateRequest(lease),
        passedBytes: settlement.passedBytes,
        forwardedBytes: settlement.forwardedBytes,
        timing: { ...settlement.timing },
      },
      ...(answer.tail === null ? {} : { body: answer.tail }),
    });
  }

  recordLost(lease: Lease): void {
    if (this.#log.isClosed) return;
    this.#state = { ...this.#state, open: this.#state.open.filter((seq) => seq !== lease.seq) };
    const reference = lease.lostReference(this.#deployment.config.transcripts.streamLeadBytes);
    this.#record("answer", this.#deployment.version, Date.now(), {
      fields: {
        call: lease.seq,
        outcome: "lost",
        ...(lease.cause === null ? {} : { cause: lease.cause }),
        reason: "the Worker that pumped this call is gone",
        body: reference === null ? null : { ...reference },
        ...this.#lateRequest(lease),
      },
    });
  }

  /** The digest of a request body that was longer than its call's record is known only now. */
  #lateRequest(lease: Lease): Fields {
    if (lease.request === null) return {};
    return { requestBody: { ...lease.request.reference(null, "as declared", lease.requestComplete) } };
  }

  release(lease: Lease): void {
    this.#leases.delete(lease.seq);
  }

  /** Breaks every lease and waits until each Worker has confirmed, within bounds. */
  async #cutAll(cause: Cause): Promise<CloseAnswer> {
    const leases = [...this.#leases.values()];
    for (const lease of leases) lease.break(cause);
    await Promise.race([
      Promise.all(leases.map((lease) => lease.done)),
      new Promise((resolve) => setTimeout(resolve, CUT_CONFIRM_MS)),
    ]);
    const unconfirmed = leases.filter((lease) => !lease.isDone).length;
    return { cut: leases.length - unconfirmed, unconfirmed, acknowledgedAtMs: Date.now() };
  }

  // --- control ----------------------------------------------------------------------------------------------------

  /** A switch in whose reach this instance is. Persisted before anything else; answers when the running calls are cut. */
  async close(sw: Switch): Promise<CloseAnswer> {
    this.#closeNow(sw);
    return this.#cutAll("switched");
  }

  #closeNow(sw: Switch): void {
    if (this.#switches.some(({ id }) => id === sw.id)) return;
    this.#switches.push(sw);
    this.ctx.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    if (this.#enrolment === null || this.#log.isClosed) return;
    this.#state = { ...this.#state, stopped: this.#state.stopped ?? "switched" };
    this.#record("switched", this.#deployment.version, Date.now(), { fields: switchFields(sw) });
    this.#wakeBy(this.#endsAtMs());
  }

  /** Why no call can be admitted any more; null while the instance lives. */
  #deadReason(nowMs: number): string | null {
    if (this.#switches.length > 0) return "switched";
    if (this.#state.stopped !== null) return this.#state.stopped;
    if (this.#enrolment !== null && this.#enrolment.task.deadlineMs <= nowMs) return "the task is over";
    return null;
  }

  /** Whether this object holds an unexpired confirmation. Busy, it asks ahead of need and off the call's path; idle, never. */
  async #ready(): Promise<boolean> {
    if (this.#enrolment === null) return true;
    const nowMs = Date.now();
    if (nowMs < this.#confirmedUntilMs) {
      const half = this.#deployment.config.roster.confirmationMs / 2;
      if (this.#confirmedUntilMs - nowMs < half) this.ctx.waitUntil(this.#confirm());
      return true;
    }
    return this.#confirm();
  }

  #confirm(): Promise<boolean> {
    this.#confirming ??= this.#askRoster().finally(() => {
      this.#confirming = null;
    });
    return this.#confirming;
  }

  async #askRoster(): Promise<boolean> {
    // Measured from before the question: never longer than what the roster believes (it measures from its answer).
    const sentAtMs = Date.now();
    let answer: ConfirmAnswer;
    try {
      answer = await rosterOf(this.#deployment).confirm(this.#enrolment!.instance);
    } catch {
      return false;
    }
    for (const sw of answer.closed) this.#closeNow(sw);
    if (!answer.confirmed) return false;
    this.#confirmedUntilMs = Math.max(this.#confirmedUntilMs, sentAtMs + answer.validMs);
    return true;
  }

  // --- the transcript ---------------------------------------------------------------------------------------------

  /** What has not left for R2 yet, as exact lines. */
  async read(fromSeq: number, maxLines: number): Promise<UnstoredLines | null> {
    if (this.#enrolment === null) return null;
    return { partition: this.#logOptions().partition, lines: this.#log.unstoredLines(fromSeq, maxLines) };
  }

  /** Everything that time does: the sealed end, lost calls, segments to R2, tables dropped. Runs again from the start after any failure. */
  override async alarm(): Promise<void> {
    this.#alarmAtMs = null;
    if (this.#enrolment === null) return;
    try {
      const nowMs = Date.now();
      this.#recordOrphans(nowMs);
      if (!this.#log.isClosed && nowMs >= this.#endsAtMs()) {
        // The last calls are cut and answered before the end is written.
        await this.#cutAll("expired");
        this.#end(Date.now());
      }
      if (this.#isDue(Date.now())) {
        this.#flushCounted(this.#deployment.version, Date.now());
        this.#log.seal(this.#logOptions(), false, Date.now());
      }
      await this.#log.store(this.env.TRANSCRIPTS, this.#logOptions());
      this.#log.drop(Date.now(), this.#state.open[0] ?? null);
      this.#wakeForLog();
    } catch (error) {
      // Nothing is lost: rows stay until a put is confirmed. Retries of the platform are finite, so this arms its own.
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wakeBy(Date.now() + RETRY_MS);
    }
  }

  #isDue(nowMs: number): boolean {
    const { flushAfterMs, flushAfterBytes } = this.#deployment.config.transcripts;
    const oldest = this.#log.oldestAtMs;
    return oldest !== null && (nowMs >= oldest + flushAfterMs || this.#log.openBytes >= flushAfterBytes);
  }

  /** When the transcript ends: at the deadline; once stopped, when the last grant has run out and no more attempt can be authentic. */
  #endsAtMs(): number {
    const { deadlineMs } = this.#enrolment!.task;
    return this.#state.stopped === null ? deadlineMs : Math.min(deadlineMs, this.#state.grantsExpireAtMs + 1_000);
  }

  #end(nowMs: number): void {
    if (this.#log.isClosed) return;
    this.#flushCounted(this.#deployment.version, nowMs);
    this.#record("ended", this.#deployment.version, nowMs, {
      fields: {
        cause: this.#state.stopped ?? "deadline",
        calls: this.#state.usage.calls,
        bytes: this.#state.usage.bytes,
      },
    });
    this.#log.seal(this.#logOptions(), true, nowMs);
    this.ctx.waitUntil(
      rosterOf(this.#deployment)
        .leave(this.#enrolment!.instance)
        .catch(() => {}),
    );
  }

  /** Calls that a restart left without lease or outcome. */
  #recordOrphans(nowMs: number): void {
    if (this.#log.isClosed || nowMs < this.#startedAtMs + ORPHAN_GRACE_MS) return;
    for (const seq of this.#state.open) {
      if (this.#leases.has(seq)) continue;
      this.#state = { ...this.#state, open: this.#state.open.filter((open) => open !== seq) };
      const body = this.#rehash(seq);
      this.#record("answer", this.#deployment.version, nowMs, {
        fields: { call: seq, outcome: "lost", reason: "the object was reset while the call ran", body },
      });
    }
  }

  /** What is durable of an answer whose lease died with the object. */
  #rehash(of: number): Json {
    const writer = [...this.#log.bodyRuns(of, "answer")];
    const bytes = writer.reduce((sum, run) => sum + run.bytes.length, 0);
    const mayMiss = this.#deployment.config.transcripts.streamLeadBytes;
    const digest = writer.length === 0 ? null : digestOf(writer);
    return { digest, bytes, mediaType: null, coding: "unknown", complete: false, mayMiss };
  }

  #record(
    type: Parameters<TranscriptLog["append"]>[0]["type"],
    deployment: string,
    nowMs: number,
    record: { fields: Fields; grant?: string; jti?: { id: string; untilMs: number }; body?: BodyRun },
  ): void {
    const { instance, agent, agentVersion, task, human, client, grant, chain } = this.#enrolment!;
    this.#log.append({
      type,
      fields: {
        instance,
        agent,
        agentVersion,
        task: task.id,
        human,
        client,
        chain: chain.map((actor) => ({ ...actor })),
        grant: record.grant ?? grant,
        deployment,
        ...record.fields,
      },
      ...(record.jti === undefined ? {} : { jti: record.jti }),
      ...(record.body === undefined ? {} : { body: record.body }),
      state: this.#state as unknown as Json,
      nowMs,
    });
    const { flushAfterMs, flushAfterBytes } = this.#deployment.config.transcripts;
    this.#wakeBy(this.#log.openBytes >= flushAfterBytes ? nowMs : nowMs + flushAfterMs);
  }

  #jti(proof: { jti: string; issuedAtMs: number }): { id: string; untilMs: number } {
    return { id: proof.jti, untilMs: proof.issuedAtMs + PROOF_MAX_AGE_MS + JTI_MARGIN_MS };
  }

  #logOptions(): LogOptions {
    const { instance, human, task } = this.#enrolment!;
    return {
      issuer: this.#deployment.config.origin,
      log: instance,
      partition: instancePartition({ human, task: task.id, instance }),
      sealKeys: this.#deployment.sealKeys,
    };
  }

  #wakeForLog(): void {
    const { flushAfterMs } = this.#deployment.config.transcripts;
    const times = [
      this.#log.oldestAtMs === null ? null : this.#log.oldestAtMs + flushAfterMs,
      this.#log.dropAtMs,
      this.#log.isClosed ? null : this.#endsAtMs(),
    ];
    for (const time of times) if (time !== null) this.#wakeBy(time);
  }

  /** One alarm an object: the earliest of what is wanted. Arming costs a row, so only when it moves forward. */
  #wakeBy(atMs: number): void {
    if (this.#alarmAtMs !== null && this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    void this.ctx.storage.setAlarm(atMs);
  }
}

const refused = (denial: Denial): AdmitRefusal => ({ admitted: false, denial });

const headerOf = (headers: readonly (readonly [string, string])[], name: string): string | null =>
  headers.find(([key]) => key === name)?.[1] ?? null;

const upstreamsOf = (enrolment: Enrolment): string[] => [
  ...new Set(enrolment.scope.map((entry) => (entry as { upstream: string }).upstream)),
];

const attributesOf = (enrolment: Enrolment, upstreams: readonly string[]): Attributes => ({
  instance: enrolment.instance,
  human: enrolment.human,
  task: enrolment.task.id,
  agent: enrolment.agent,
  agentVersion: enrolment.agentVersion,
  client: enrolment.client,
  upstreams,
  deadlineMs: enrolment.task.deadlineMs,
});

const digestOf = (runs: readonly { readonly salt: Uint8Array | null; readonly bytes: Uint8Array }[]): string =>
  sha256Hex(...runs.flatMap(({ salt, bytes }) => (salt === null ? [bytes] : [salt, bytes])));
