import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { FlipRequest } from "../src/control/contract.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import type {
  ApproveAnswer,
  Mandate,
  MandateBookCalls,
  MandateRefusal,
  MandateState,
  Revocation,
  RevokeRequest,
  UseAnswer,
} from "../src/mandate/contract.ts";
import { whyUnusable, whyUsedUp } from "../src/mandate/decide.ts";
import { dayOf } from "../src/mandate/schedule.ts";
import { mandateIndexOf, switchboardOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";
import { ActOutbox } from "./act-outbox.ts";
import { MandateTables } from "./mandate-tables.ts";
import type { UnreadableState } from "./stored.ts";
import { Wake } from "./wake.ts";

/** A revocation that the switchboard has not heard of is told again after this. */
const RETRY_MS = 1_000;
const ANSWER_MS = 5_000;
/** Above the switchboard's own wait for what a flip does. */
const FLIP_TIMEOUT_MS = 15_000;
/** What works under a mandate is over when it expires; clocks differ, and an enrolment may be on its way. */
const MARGIN_MS = 3_600_000;
/** How far the provider's clock may be ahead: as with every token of it. */
const SKEW_MS = 60_000;
const DAY_MS = 86_400_000;
/** Of as many as may stand at a time. */
const TIMES_A_DAY = 10;
/** One that is over is listed for this long. */
const FORGET_MS = 15_552_000_000;

/** What one human approved in advance. The one place where its uses are counted and its end is decided. */
export class MandateBook extends DurableObject<Env> implements MandateBookCalls {
  readonly #tables: MandateTables;
  readonly #acts: ActOutbox;
  readonly #wake: Wake;
  #flipping: Promise<UnreadableState | null> | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#tables = new MandateTables(ctx.storage.sql);
    this.#acts = new ActOutbox(ctx.storage.sql, () => this.#deployment);
    this.#wake = new Wake(ctx, () => (this.#tables.hasFlips || this.#acts.hasUntold ? Date.now() : null));
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  // --- the human's door -------------------------------------------------------------------------------------------

  async approve(mandate: Mandate): Promise<ApproveAnswer> {
    const { id, human } = mandate;
    // First: the index, which is everybody's, hears of nothing that is refused for this.
    if (this.#isFull(Date.now())) return { approved: false, reason: "too-many" };
    const stopped = await this.#whyStopped(mandate);
    if (stopped !== null) return { approved: false, reason: stopped };
    // Dying after this leaves an entry that leads to no mandate.
    const noted = mandateIndexOf(this.#deployment)
      .note({ id, human }, mandate.expiresAtMs + MARGIN_MS + FORGET_MS)
      .then(() => true);
    if ((await within(ANSWER_MS, noted).catch(() => undefined)) !== true)
      return { approved: false, reason: "unavailable" };
    // INVARIANT: synchronous from here.
    const nowMs = Date.now();
    this.#tables.forget(nowMs - FORGET_MS);
    if (this.#isFull(nowMs)) return { approved: false, reason: "too-many" };
    this.#tables.add(mandate);
    this.#keepAct({ deed: "approve mandate", by: human, ...approvedFields(mandate) });
    this.ctx.waitUntil(this.#acts.tellAll());
    return { approved: true, state: this.#tables.get(id)! };
  }

  /** As many as may stand; or so many on one day that somebody fills the book, who approves and revokes. */
  #isFull(nowMs: number): boolean {
    const most = this.#deployment.config.mandates?.mostStanding ?? 0;
    if (this.#tables.countStanding(nowMs) >= most) return true;
    return this.#tables.approvedAtOf(most * TIMES_A_DAY) > nowMs - DAY_MS;
  }

  async read(id: string): Promise<MandateState | null> {
    return this.#tables.get(id) ?? null;
  }

  async list(): Promise<readonly MandateState[]> {
    return this.#tables.newest();
  }

  /** From the commit on nobody can use it. The answer waits for the switch that ends who works under it; the alarm carries that on. */
  async revoke(id: string, { by, email, reason }: RevokeRequest): Promise<MandateState | null> {
    const known = this.#tables.get(id);
    if (known === undefined) return null;
    if (known.revoked === null) {
      const nowMs = Date.now();
      const untilMs = known.mandate.expiresAtMs + MARGIN_MS;
      // By then nothing works under it any more; nor where it was never used, and from this commit on nobody can.
      const flip = known.uses > 0 && nowMs < untilMs ? flipOf(id, by, reason, untilMs) : null;
      const revocation: Revocation = { atMs: nowMs, by, reason, switch: flip?.id ?? null };
      // One commit: revoked, to be flipped, to be told.
      this.#tables.revoke(id, revocation, flip);
      this.#keepAct({
        deed: "revoke mandate",
        mandate: id,
        human: known.mandate.human,
        by,
        email,
        reason,
        switch: revocation.switch,
      });
    }
    await within(FLIP_TIMEOUT_MS, this.#flipAll());
    this.ctx.waitUntil(this.#acts.tellAll());
    return this.#tables.get(id)!;
  }

  // --- the authority's door ---------------------------------------------------------------------------------------

  async use(id: string): Promise<UseAnswer> {
    const refused = (reason: MandateRefusal): UseAnswer => ({ used: false, reason });
    const known = this.#tables.get(id);
    if (known === undefined) return refused("unknown");
    const before = this.#whyRefused(known, Date.now());
    if (before !== null) return refused(before);
    const stopped = await this.#whyStopped(known.mandate);
    if (stopped !== null) return refused(stopped);
    // INVARIANT: synchronous from here. Of a use and a revocation, and of two for the last use, one finds the other.
    const nowMs = Date.now();
    const state = this.#tables.get(id)!;
    const now = this.#whyRefused(state, nowMs);
    if (now !== null) return refused(now);
    this.#tables.countUse(id, dayOf(state.mandate.schedule, nowMs));
    return { used: true };
  }

  /** Kept until it has surely expired: the answer leaves when that is durable. */
  async spendAssertion(jti: string, untilMs: number): Promise<boolean> {
    return this.#tables.spendAssertion(jti, untilMs + MARGIN_MS, Date.now());
  }

  #whyRefused(state: MandateState, nowMs: number): MandateRefusal | null {
    const unusable = whyUnusable(state, nowMs);
    if (unusable !== null) return unusable;
    const { mandate, uses } = state;
    return whyUsedUp(mandate, uses, this.#tables.usesOn(mandate.id, dayOf(mandate.schedule, nowMs)));
  }

  /**
   * A kill of the human ends what they had approved before, also when it was lifted since: whoever had their session
   * may have approved it. Measured from when the provider vouched for them, by its clock: who signs in within a minute of
   * the kill is not told from who had before.
   */
  async #whyStopped({
    human,
    emailDigest,
    groupsAtMs,
  }: Mandate): Promise<"its human was stopped since" | "unavailable" | null> {
    const names = emailDigest === null ? [human] : [human, emailDigest];
    const asked = switchboardOf(this.#deployment).humanKilledAt(names);
    const killedAtMs = await within(ANSWER_MS, asked).catch(() => undefined);
    if (killedAtMs === undefined) return "unavailable";
    return killedAtMs !== null && killedAtMs >= groupsAtMs - SKEW_MS ? "its human was stopped since" : null;
  }

  // --- the switch of a revocation ---------------------------------------------------------------------------------

  override async alarm(): Promise<void> {
    this.#wake.rang();
    const unreadable = await this.#flipAll();
    await this.#acts.tellAll();
    if (this.#tables.hasFlips || this.#acts.hasUntold) this.#wake.by(Date.now() + RETRY_MS);
    if (unreadable !== null) throw unreadable;
  }

  /** One at a time. Known at the switchboard by its id: told twice, it is one switch. Answers why one can't be read, if one can't. */
  #flipAll(): Promise<UnreadableState | null> {
    this.#flipping ??= this.#flipNow().finally(() => {
      this.#flipping = null;
    });
    return this.#flipping;
  }

  async #flipNow(): Promise<UnreadableState | null> {
    for (;;) {
      const { next, unreadable } = this.#tables.nextFlip();
      if (next === null) return unreadable;
      try {
        const answer = await within(FLIP_TIMEOUT_MS, switchboardOf(this.#deployment).flip(next.flip));
        if (answer?.flipped !== true) return unreadable;
      } catch {
        return unreadable;
      }
      this.#tables.setFlipped(next.mandate);
    }
  }

  #keepAct(fields: Fields): void {
    this.#acts.keep(fields);
    this.#wake.by(Date.now() + RETRY_MS);
  }
}

const flipOf = (mandate: string, by: string, reason: string, untilMs: number): FlipRequest => ({
  id: crypto.randomUUID(),
  reach: "mandate",
  target: { mandate },
  act: "kill",
  reason,
  by,
  email: null,
  cause: null,
  untilMs,
  idempotencyKey: null,
});

const approvedFields = (mandate: Mandate): Fields => ({
  mandate: mandate.id,
  human: mandate.human,
  agent: mandate.agent,
  client: mandate.platform,
  purpose: mandate.purpose,
  scope: [...mandate.scope],
  schedule: mandate.schedule === null ? null : { ...mandate.schedule, days: [...mandate.schedule.days] },
  notBefore: mandate.notBeforeMs,
  expires: mandate.expiresAtMs,
  taskSeconds: mandate.taskSeconds,
  limits: { ...mandate.limits },
  maxUses: mandate.maxUses,
  perDay: mandate.perDay,
});
