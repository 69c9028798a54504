import { DurableObject } from "cloudflare:workers";
import config from "#config";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import type {
  Asker,
  EraseAnswer,
  ErasureRequest,
  ErasureState,
  ErasureStatus,
  HeldSubject,
  HoldRequest,
  HoldState,
  ReleaseAnswer,
  RetentionCalls,
} from "../src/retention/contract.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { erasureKey } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";
import { ActOutbox } from "./act-outbox.ts";
import { type Erasure, ErasureBook } from "./erasure-book.ts";
import { HeldError } from "./erasure-guard.ts";
import { ErasureRun } from "./erasure-run.ts";
import { HoldBook } from "./hold-book.ts";
import { UnreadableState } from "./stored.ts";
import { Wake } from "./wake.ts";

/** What waits for an instance, or for the journal, is tried again after this; where the bucket fails, after five of it. */
const RETRY_MS = 1_000;
const FAILED_MS = 5_000;
/** Of one alarm: a step asks 200 instances, or the bucket 200 times, at most; the platform allows an invocation 1,000 of either. */
const STEPS_PER_ALARM = 4;
/** Who holds hears of it when no deletion is on its way any more, or after this. */
const HOLD_WAIT_MS = 25_000;
/**
 * When the bucket is gone through again. A put that R2 had not answered within its 30 s (`put-once.ts`) is tried again, and
 * may be carried out after all when what the second try stored is erased.
 */
const SWEEP_AFTER_MS = 900_000;
/** Two who agree to release do so within this. */
const RELEASE_WINDOW_MS = 3_600_000;

/** The book of legal holds and of erasures. One object: of a hold and a deletion, each finds the other. */
export class Retention extends DurableObject<Env> implements RetentionCalls {
  readonly #holds: HoldBook;
  readonly #book: ErasureBook;
  readonly #acts: ActOutbox;
  readonly #run: ErasureRun;
  readonly #wake: Wake;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { sql } = ctx.storage;
    this.#holds = new HoldBook(sql);
    this.#book = new ErasureBook(sql);
    this.#acts = new ActOutbox(sql, () => this.#deployment);
    this.#run = new ErasureRun({
      book: this.#book,
      holds: this.#holds,
      bucket: () => this.env.TRANSCRIPTS,
      deployment: () => this.#deployment,
    });
    this.#wake = new Wake(ctx, () =>
      this.#book.hasRunning || this.#acts.hasUntold ? Date.now() : this.#book.sweepAtMs,
    );
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  // --- holds ------------------------------------------------------------------------------------------------------

  /** From the commit on no deletion of what it keeps begins. The answer waits for those that had begun. */
  async hold({ subject, reason, by, email }: HoldRequest): Promise<HoldState> {
    const hold = { id: crypto.randomUUID(), subject, reason, by, atMs: Date.now() };
    this.#holds.add(hold);
    this.#keepAct({ deed: "hold", hold: hold.id, ...subjectFields(subject), reason, by, email });
    await within(HOLD_WAIT_MS, this.#run.deleting);
    this.ctx.waitUntil(this.#acts.tellAll());
    return this.#holdOf(hold.id)!;
  }

  /** Takes two people within an hour: what is released can be gone a moment later, for good. */
  async release(id: string, { by, email, reason }: Asker): Promise<ReleaseAnswer> {
    const hold = this.#holdOf(id);
    if (hold === undefined) return { kind: "unknown" };
    if (hold.released !== null) return { kind: "released-already" };
    const nowMs = Date.now();
    this.#holds.askRelease(id, by, nowMs);
    const asked = this.#holdOf(id)!.releaseAskedBy;
    const isReleased = asked.length >= 2;
    if (isReleased) this.#holds.release(id, { atMs: nowMs, by: asked, reason });
    const deed = isReleased ? "release" : "ask to release";
    this.#keepAct({ deed, hold: id, ...subjectFields(hold.subject), reason, by, email });
    this.ctx.waitUntil(this.#acts.tellAll());
    return { kind: isReleased ? "released" : "second-person", hold: this.#holdOf(id)! };
  }

  async holds(before: string | null, limit: number): Promise<readonly HoldState[]> {
    return this.#holds.before(before, limit, Date.now() - RELEASE_WINDOW_MS);
  }

  #holdOf(id: string): HoldState | undefined {
    return this.#holds.get(id, Date.now() - RELEASE_WINDOW_MS);
  }

  // --- erasures ---------------------------------------------------------------------------------------------------

  /** In the book, and carried out by the alarm: whoever asked may go. */
  async erase(request: ErasureRequest): Promise<EraseAnswer> {
    const repeated = this.#book.repeated(request);
    if (repeated === null) return { kind: "key-used" };
    if (repeated !== undefined) return { kind: "accepted", isRepeated: true, erasure: this.#book.state(repeated)! };
    const hold = this.#holds.forbidding(request);
    if (hold !== undefined) return { kind: "held", hold: this.#holdOf(hold.id)! };
    const id = crypto.randomUUID();
    const { human, task, reason, by, email } = request;
    const nowMs = Date.now();
    const certificate = erasureKey(human, id);
    const erasure: Erasure = { id, human, task, reason, by, email, atMs: nowMs, beforeMs: nowMs, certificate };
    this.#book.add(erasure, request);
    this.#keepAct({ deed: "erase", erasure: id, human, task, reason, by, email, before: nowMs, certificate });
    this.#wake.by(nowMs);
    return { kind: "accepted", isRepeated: false, erasure: this.#book.state(id)! };
  }

  async erasure(id: string): Promise<ErasureState | null> {
    return this.#book.state(id) ?? null;
  }

  /** Runs again from where the book stands, after any failure. */
  override async alarm(): Promise<void> {
    this.#wake.rang();
    let pauseMs: number;
    try {
      pauseMs = await this.#carryOn();
    } finally {
      await this.#acts.tellAll();
    }
    if (this.#book.hasRunning) this.#wake.by(Date.now() + pauseMs);
    else if (this.#acts.hasUntold) this.#wake.by(Date.now() + RETRY_MS);
    const sweepAtMs = this.#book.sweepAtMs;
    if (sweepAtMs !== null) this.#wake.by(Math.max(sweepAtMs, Date.now() + pauseMs));
  }

  /** Answers how long to wait before the next alarm. */
  async #carryOn(): Promise<number> {
    for (let steps = 0; steps < STEPS_PER_ALARM; steps++) {
      const running = this.#book.running() ?? this.#book.sweeping(Date.now());
      if (running === undefined) return 0;
      const { id } = running.erasure;
      const isSweep = running.stage === "late";
      try {
        const step = await this.#run.step(running);
        if (step === "wait") return RETRY_MS;
        if (step === "over" && isSweep) this.#endSweep(running.erasure);
        else if (step === "over")
          this.#end(running.erasure, this.#book.leftCount(id) === 0 ? "done" : "incomplete", null);
      } catch (error) {
        // A hold, or how far it is, says nothing that could be gone by: nothing goes.
        if (error instanceof UnreadableState) throw error;
        if (!(error instanceof HeldError)) {
          console.error("erasure stands still", error instanceof Error ? error.message : "unknown");
          return FAILED_MS;
        }
        // What came back since is the hold's to keep.
        if (isSweep) this.#endSweep(running.erasure);
        else this.#end(running.erasure, "stopped", error.hold);
      }
    }
    return 0;
  }

  #end({ id, human, task, by, email }: Erasure, status: ErasureStatus, hold: string | null): void {
    const nowMs = Date.now();
    this.#book.end(id, status, hold, nowMs, status === "stopped" ? null : nowMs + SWEEP_AFTER_MS);
    const { objects, bytes, rewritten, blanked, leftCount } = this.#book.state(id)!;
    const found = { objects, bytes, rewritten, blanked, left: leftCount };
    this.#keepAct({ deed: "erased", erasure: id, human, task, status, hold, ...found, by, email });
  }

  /** On record where anything had come back. */
  #endSweep({ id, human, task, by, email }: Erasure): void {
    const found = this.#book.endSweep(id);
    if (found.objects + found.rewritten === 0) return;
    this.#keepAct({ deed: "erased", erasure: id, human, task, status: "late", hold: null, ...found, by, email });
  }

  #keepAct(fields: Fields): void {
    this.#acts.keep(fields);
    this.#wake.by(Date.now() + RETRY_MS);
  }
}

const subjectFields = (subject: HeldSubject): Fields =>
  subject.kind === "everything" ? { reach: "everything" } : { reach: subject.kind, [subject.kind]: subject.id };
