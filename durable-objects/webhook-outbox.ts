import type { Approval } from "../src/approval/contract.ts";
import { webhookBody, webhookPauseMs } from "../src/approval/webhook.ts";
import type { Deployment } from "../src/deployment.ts";
import { postWebhook } from "../src/upstream/webhook.ts";
import { UnreadableState } from "./stored.ts";

const AT_ONCE = 20;

/** Requests that the webhook is still to be told of. A receiver that is out of reach hinders nothing: the list has them all. */
export class WebhookOutbox {
  readonly #sql: SqlStorage;
  readonly #deployment: () => Deployment;
  readonly #find: (id: string) => Approval | undefined;

  /** @param deployment throws while a secret is missing */
  constructor(sql: SqlStorage, deployment: () => Deployment, find: (id: string) => Approval | undefined) {
    this.#sql = sql;
    this.#deployment = deployment;
    this.#find = find;
    sql.exec(
      "CREATE TABLE IF NOT EXISTS hooks (id TEXT PRIMARY KEY, attempts INTEGER NOT NULL, next_at_ms INTEGER NOT NULL)",
    );
  }

  keep(id: string, nowMs: number): void {
    this.#sql.exec("INSERT OR IGNORE INTO hooks (id, attempts, next_at_ms) VALUES (?, 0, ?)", id, nowMs);
  }

  get dueAtMs(): number | null {
    return this.#sql.exec<{ at: number | null }>("SELECT min(next_at_ms) AS at FROM hooks").one().at;
  }

  /** Those that are due, some at a time. What was posted and not struck out is posted again, with the same id. */
  async send(nowMs: number): Promise<void> {
    const due = this.#sql
      .exec<{ id: string; attempts: number }>(
        "SELECT id, attempts FROM hooks WHERE next_at_ms <= ? ORDER BY next_at_ms LIMIT ?",
        nowMs,
        AT_ONCE,
      )
      .toArray();
    // All of them come to their end: what is on its way when the next alarm is armed would be posted once more.
    const sent = await Promise.allSettled(due.map(({ id, attempts }) => this.#sendOne(id, attempts + 1)));
    const failed = sent.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #sendOne(id: string, attempts: number): Promise<void> {
    const found = this.#read(id);
    const approval = found instanceof UnreadableState ? null : found;
    // Nobody need come any more.
    if (approval !== null && (approval?.state !== "asked" || (await this.#post(approval)))) return this.#strike(id);
    const pauseMs = webhookPauseMs(attempts);
    if (pauseMs === null) {
      console.error("the webhook for approvals took no request: given up");
      return this.#strike(id);
    }
    this.#sql.exec("UPDATE hooks SET attempts = ?, next_at_ms = ? WHERE id = ?", attempts, Date.now() + pauseMs, id);
    if (found instanceof UnreadableState) throw found;
  }

  #read(id: string): Approval | undefined | UnreadableState {
    try {
      return this.#find(id);
    } catch (error) {
      if (error instanceof UnreadableState) return error;
      throw error;
    }
  }

  async #post(approval: Approval): Promise<boolean> {
    try {
      const { config, env } = this.#deployment();
      const { webhook } = config.approvals;
      if (webhook === undefined) return true;
      return await postWebhook(webhook, { id: approval.id, body: webhookBody(approval, config.origin) }, env);
    } catch {
      return false;
    }
  }

  #strike(id: string): void {
    this.#sql.exec("DELETE FROM hooks WHERE id = ?", id);
  }
}
