import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { FlipPending, FlipRequest, SwitchboardCalls } from "../src/control/contract.ts";
import type { FlipAnswer, Reached, Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { rosterOf } from "../src/objects.ts";

type SwitchRow = { id: string; json: string; outcome: string | null };

const SCHEMA = `CREATE TABLE IF NOT EXISTS switches (
  id TEXT PRIMARY KEY, json TEXT NOT NULL, outcome TEXT) WITHOUT ROWID`;

/** A flip whose roster did not answer is tried again after this, until it does. */
const RETRY_MS = 1_000;

/** The book of switches. Traffic only on flips: no call ever asks here. */
export class Switchboard extends DurableObject<Env> implements SwitchboardCalls {
  readonly #deployment: Deployment;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#deployment = parseDeployment(env, config);
    ctx.storage.sql.exec(SCHEMA);
  }

  /** Persists the switch, hands it to the roster, and answers when everyone in reach has acknowledged or can't. Null: accepted, and not through yet. */
  async flip(request: FlipRequest): Promise<FlipAnswer | FlipPending> {
    const sw: Switch = { ...request, id: crypto.randomUUID(), atMs: Date.now() };
    this.ctx.storage.sql.exec(
      "INSERT INTO switches (id, json, outcome) VALUES (?, ?, NULL)",
      sw.id,
      JSON.stringify(sw),
    );
    // From here the flip survives: if this object dies, the alarm carries it on.
    await this.ctx.storage.setAlarm(Date.now() + RETRY_MS);
    const outcome = await this.#carryOut(sw);
    return outcome ?? { switch: sw, reached: null };
  }

  async list(): Promise<readonly (Switch & { readonly outcome: readonly Reached[] | null })[]> {
    return this.#rows("1").map(({ json, outcome }) => ({
      ...(JSON.parse(json) as Switch),
      outcome: outcome === null ? null : (JSON.parse(outcome) as FlipAnswer).reached,
    }));
  }

  override async alarm(): Promise<void> {
    const open = this.#rows("outcome IS NULL");
    if (open.length === 0) return;
    await this.ctx.storage.setAlarm(Date.now() + RETRY_MS);
    for (const { json } of open) await this.#carryOut(JSON.parse(json) as Switch);
  }

  /** Runs as often as needed: the roster and the instances know a switch by its id. */
  async #carryOut(sw: Switch): Promise<FlipAnswer | null> {
    let reached: readonly Reached[];
    try {
      reached = await rosterOf(this.#deployment).apply(sw);
    } catch {
      return null;
    }
    const answer: FlipAnswer = { switch: sw, reached, acknowledgedAtMs: Date.now() };
    this.ctx.storage.sql.exec("UPDATE switches SET outcome = ? WHERE id = ?", JSON.stringify(answer), sw.id);
    return answer;
  }

  #rows(where: string): SwitchRow[] {
    return this.ctx.storage.sql.exec<SwitchRow>(`SELECT * FROM switches WHERE ${where}`).toArray();
  }
}
