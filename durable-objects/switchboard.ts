import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { FlipListed, FlipPending, FlipRequest, SwitchboardCalls } from "../src/control/contract.ts";
import { type FlipAnswer, isSilent, mergeReached, type Reached, type Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { rosterOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import { Wake } from "./wake.ts";

type SwitchRow = { id: string; json: string; outcome: string | null; done: number };

const SCHEMA = `CREATE TABLE IF NOT EXISTS switches (
  id TEXT PRIMARY KEY, json TEXT NOT NULL, outcome TEXT, done INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID`;

/** A flip that is not done is pushed again after this, until nobody in reach can do anything any more. */
const RETRY_MS = 1_000;
/** Above the roster's own wait for one push. What takes longer runs on there, and is asked for again. */
const APPLY_TIMEOUT_MS = 10_000;

/** The book of switches. Traffic only on flips: no call ever asks here. */
export class Switchboard extends DurableObject<Env> implements SwitchboardCalls {
  readonly #wake: Wake;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    ctx.storage.sql.exec(SCHEMA);
    this.#wake = new Wake(ctx, () => (this.#rows("done = 0").length > 0 ? Date.now() : null));
  }

  /** Where it is used, not in the constructor: a secret that is missing must not end the retries of a kill. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  /** Persists the switch, hands it to the roster, and answers with what came of one round of pushes. */
  async flip(request: FlipRequest): Promise<FlipAnswer | FlipPending> {
    const sw: Switch = { ...request, id: crypto.randomUUID(), atMs: Date.now() };
    this.ctx.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    // From here the flip survives: if this object dies, the alarm carries it on.
    this.#wake.by(Date.now() + RETRY_MS);
    const outcome = await this.#carryOut(sw);
    return outcome ?? { switch: sw, reached: null };
  }

  async list(): Promise<readonly FlipListed[]> {
    return this.#rows("1").map(({ json, outcome, done }) => ({
      ...(JSON.parse(json) as Switch),
      status: done === 1 ? "done" : outcome === null ? "accepted" : "pending",
      outcome: outcome === null ? null : (JSON.parse(outcome) as FlipAnswer).reached,
    }));
  }

  override async alarm(): Promise<void> {
    this.#wake.rang();
    const open = this.#rows("done = 0");
    if (open.length === 0) return;
    this.#wake.by(Date.now() + RETRY_MS);
    for (const { json } of open) await this.#carryOut(JSON.parse(json) as Switch);
  }

  /** Runs as often as needed: the roster and the instances know a switch by its id. */
  async #carryOut(sw: Switch): Promise<FlipAnswer | null> {
    let reached: readonly Reached[] | undefined;
    try {
      reached = await within(APPLY_TIMEOUT_MS, rosterOf(this.#deployment).apply(sw));
    } catch {
      return null;
    }
    if (reached === undefined) return null;
    const [row] = this.#rows("id = ?", sw.id);
    const before = row?.outcome == null ? [] : (JSON.parse(row.outcome) as FlipAnswer).reached;
    const nowMs = Date.now();
    const merged = mergeReached(before, reached);
    const isDone = merged.every((one) => isSilent(one, nowMs));
    const status = isDone ? "done" : "pending";
    const answer: FlipAnswer = { switch: sw, status, reached: merged, acknowledgedAtMs: nowMs };
    this.ctx.storage.sql.exec(
      "UPDATE switches SET outcome = ?, done = ? WHERE id = ?",
      JSON.stringify(answer),
      isDone ? 1 : 0,
      sw.id,
    );
    return answer;
  }

  #rows(where: string, ...bindings: string[]): SwitchRow[] {
    return this.ctx.storage.sql.exec<SwitchRow>(`SELECT * FROM switches WHERE ${where}`, ...bindings).toArray();
  }
}
