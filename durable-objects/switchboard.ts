import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { FlipPending, FlipRequest, SwitchboardCalls } from "../src/control/contract.ts";
import type { FlipAnswer, Reached, Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { rosterOf } from "../src/objects.ts";

type SwitchRow = { id: string; json: string; outcome: string | null; done: number };

const SCHEMA = `CREATE TABLE IF NOT EXISTS switches (
  id TEXT PRIMARY KEY, json TEXT NOT NULL, outcome TEXT, done INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID`;

/** A flip that has not reached everyone is pushed again after this, until each has acknowledged or can admit nothing any more. */
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
    this.ctx.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
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
    const open = this.#rows("done = 0");
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
    const [row] = this.#rows("id = ?", sw.id);
    const before = row?.outcome == null ? [] : (JSON.parse(row.outcome) as FlipAnswer).reached;
    const nowMs = Date.now();
    const answer: FlipAnswer = { switch: sw, reached: merge(before, reached), acknowledgedAtMs: nowMs };
    const done = answer.reached.every((one) => one.answer !== null || one.stoppedByMs <= nowMs);
    this.ctx.storage.sql.exec(
      "UPDATE switches SET outcome = ?, done = ? WHERE id = ?",
      JSON.stringify(answer),
      done ? 1 : 0,
      sw.id,
    );
    return answer;
  }

  #rows(where: string, ...bindings: string[]): SwitchRow[] {
    return this.ctx.storage.sql.exec<SwitchRow>(`SELECT * FROM switches WHERE ${where}`, ...bindings).toArray();
  }
}

/** Who acknowledged once has done so for good: what it answered first says how many calls were cut. */
function merge(before: readonly Reached[], now: readonly Reached[]): readonly Reached[] {
  const known = new Map(before.map((one) => [one.instance, one]));
  for (const one of now) if (known.get(one.instance)?.answer == null) known.set(one.instance, one);
  return [...known.values()];
}
