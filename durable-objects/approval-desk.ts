import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type {
  Approval,
  ApprovalDeskCalls,
  ApprovalSummary,
  DecideAnswer,
  DecideRequest,
} from "../src/approval/contract.ts";
import { isRepeatOf } from "../src/approval/policy.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { instanceOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";
import { ActOutbox } from "./act-outbox.ts";
import { DeskBook } from "./desk-book.ts";
import { Wake } from "./wake.ts";
import { WebhookOutbox } from "./webhook-outbox.ts";

const INSTANCE_ANSWER_MS = 10_000;
const RETRY_MS = 2_000;

/**
 * Where people find what waits for them. One object, which hears of approvals alone. It decides nothing: the instance does,
 * and tells here what it took. So nothing is lost where this object dies at any point: it is told again.
 */
export class ApprovalDesk extends DurableObject<Env> implements ApprovalDeskCalls {
  readonly #book: DeskBook;
  readonly #acts: ActOutbox;
  readonly #hooks: WebhookOutbox;
  readonly #wake: Wake;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { sql } = ctx.storage;
    this.#book = new DeskBook(sql);
    this.#acts = new ActOutbox(sql, () => this.#deployment);
    this.#hooks = new WebhookOutbox(
      sql,
      () => this.#deployment,
      (id) => this.#book.get(id),
    );
    this.#wake = new Wake(ctx, () => this.#nextWakeMs());
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  async report(approval: Approval): Promise<true> {
    this.#take(approval);
    return true;
  }

  /** The instance takes it or says why not. Dying here, the instance tells what it took. */
  async decide(id: string, request: DecideRequest): Promise<DecideAnswer> {
    const known = this.#book.get(id);
    if (known === undefined) return { kind: "unknown" };
    const asked = instanceOf(this.#deployment, known.instance).decideApproval(id, request);
    const answer = await within(INSTANCE_ANSWER_MS, asked).catch(() => undefined);
    if (answer === undefined) return { kind: "unavailable" };
    if (answer.kind === "decided" || answer.kind === "over") this.#take(answer.approval);
    if (answer.kind !== "unknown") return answer;
    // The instance forgets what is over, and what it has told.
    const isRepeated = isRepeatOf(request, known);
    return isRepeated ? { kind: "decided", isRepeated, approval: known } : { kind: "over", approval: known };
  }

  async list(which: "open" | "all", before: string | null, limit: number): Promise<readonly ApprovalSummary[]> {
    return this.#book.list(which, before, limit);
  }

  async read(id: string): Promise<Approval | null> {
    return this.#book.get(id) ?? null;
  }

  override async alarm(): Promise<void> {
    this.#wake.rang();
    const [, sent] = await Promise.allSettled([this.#acts.tellAll(), this.#hooks.send(Date.now())]);
    this.#book.prune(Date.now());
    const next = this.#nextWakeMs();
    if (next !== null) this.#wake.by(next);
    if (sent.status === "rejected") throw sent.reason;
  }

  /** INVARIANT: synchronous. What is new, its act for the journal and its webhook are one commit. */
  #take(approval: Approval): void {
    const { isNews, before } = this.#book.put(approval);
    if (!isNews) return;
    const nowMs = Date.now();
    const isAnnounced = before === null && approval.state === "asked" && config.approvals.webhook !== undefined;
    if (isAnnounced) this.#hooks.keep(approval.id, nowMs);
    if (before?.decision == null && approval.decision !== null) this.#acts.keep(decisionFields(approval));
    if (approval.state === "expired" || approval.state === "cancelled") this.#acts.keep(endFields(approval));
    if (isAnnounced) this.#wake.by(nowMs);
    if (this.#acts.hasUntold) this.#wake.by(nowMs + RETRY_MS);
    this.ctx.waitUntil(this.#acts.tellAll());
  }

  #nextWakeMs(): number | null {
    const times = [
      this.#acts.hasUntold ? Date.now() + RETRY_MS : null,
      this.#hooks.dueAtMs,
      this.#book.pruneAtMs,
    ].filter((time) => time !== null);
    return times.length === 0 ? null : Math.min(...times);
  }
}

const ofRequest = ({ id, human, task, instance, upstream, method, seq }: Approval): Fields => ({
  approval: id,
  human,
  task,
  instance,
  upstream,
  method,
  asked: seq,
});

const decisionFields = (approval: Approval): Fields => {
  const { verdict, by, email, reason, atMs } = approval.decision!;
  const deed = verdict === "approved" ? "approve" : "deny";
  return { deed, ...ofRequest(approval), by, email, reason, decided: atMs, validUntil: approval.validUntilMs };
};

const endFields = (approval: Approval): Fields => ({
  deed: `approval ${approval.state}`,
  ...ofRequest(approval),
  by: null,
  reason: approval.cause,
  ended: approval.endedAtMs,
});
