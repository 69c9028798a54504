import type { Rule } from "../src/config/rules.ts";
import type { FlipRequest } from "../src/control/contract.ts";
import {
  calm,
  decide,
  type NamedRule,
  type RuleState,
  rulesFor,
  signalFields,
  switchOf,
} from "../src/control/rules.ts";
import type { InstanceEvent } from "../src/control/signals.ts";
import type { Switch } from "../src/control/switch.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Enrolment } from "../src/instance/contract.ts";
import { switchboardOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";
import type { Kept } from "./kept.ts";

/** Above the switchboard's own wait for its shards. */
const FLIP_ANSWER_MS = 10_000;
/** Asked again after this, until it is done: the same key is the same flip. */
const HANDOVER_RETRY_MS = 2_000;

/** A hit, as the instance puts it on record. */
export interface Signalled {
  readonly fields: Fields;
  /** To be taken at once; null where the rule only observes. */
  readonly sw: Switch | null;
}

/**
 * The rules of the configuration over one instance. What they have counted is in memory alone, so it costs no row, and
 * an object that starts anew begins to count anew. What they have decided is not: it is handed over until it has arrived.
 */
export class RuleWatch {
  readonly #kept: Kept;
  readonly #waitUntil: (work: Promise<unknown>) => void;
  readonly #deployment: () => Deployment;
  readonly #configured: Readonly<Record<string, Rule>>;
  /** Switches that this instance has closed for itself, and that the switchboard does not carry to their end yet. */
  readonly #handovers: Map<string, FlipRequest>;
  readonly #running = new Set<string>();
  #enrolment: Enrolment | null = null;
  #rules: readonly NamedRule[] = [];
  #states: readonly RuleState[] = [];

  constructor(
    ctx: DurableObjectState,
    kept: Kept,
    deployment: () => Deployment,
    rules: Readonly<Record<string, Rule>>,
  ) {
    this.#kept = kept;
    this.#waitUntil = (work) => ctx.waitUntil(work);
    this.#deployment = deployment;
    this.#configured = rules;
    this.#handovers = kept.take<FlipRequest>("handover");
  }

  follow(enrolment: Enrolment): void {
    this.#enrolment = enrolment;
    this.#rules = rulesFor(this.#configured, enrolment.agent);
    this.#states = calm(this.#rules);
  }

  /**
   * INVARIANT: synchronous, and so is what the caller does with the answer: record, switch and handover are one commit
   * with what was seen.
   */
  saw(event: InstanceEvent, nowMs: number): readonly Signalled[] {
    const enrolment = this.#enrolment;
    if (enrolment === null || this.#rules.length === 0) return [];
    const { states, hits } = decide(this.#rules, this.#states, event, enrolment.limits, nowMs);
    this.#states = states;
    return hits.map((hit) => {
      const fields = signalFields(hit);
      if (hit.rule.mode === "observe") return { fields, sw: null };
      const sw = switchOf(hit, { ...enrolment, task: enrolment.task.id }, crypto.randomUUID(), nowMs);
      this.#owe(sw);
      return { fields, sw };
    });
  }

  #owe({ atMs: _ofTheSwitchboard, ...sw }: Switch): void {
    const request: FlipRequest = { ...sw, email: null, idempotencyKey: sw.id };
    this.#kept.put("handover", sw.id, request);
    this.#handovers.set(sw.id, request);
  }

  /** Until the switchboard is through with it, a roster that does not name it has not heard of it, and has not opened it. */
  isHandingOver(id: string): boolean {
    return this.#handovers.has(id);
  }

  /** When to try again; null: nothing is owed. */
  dueAtMs(nowMs: number): number | null {
    return this.#handovers.size === 0 ? null : nowMs + HANDOVER_RETRY_MS;
  }

  /** Beside everything else: the switchboard's push of it comes back to this object before the switchboard answers. */
  handOver(): void {
    for (const request of this.#handovers.values()) {
      if (this.#running.has(request.id)) continue;
      this.#running.add(request.id);
      this.#waitUntil(this.#handOverOne(request).finally(() => this.#running.delete(request.id)));
    }
  }

  async #handOverOne(request: FlipRequest): Promise<void> {
    try {
      // Dying here, or before the row is gone: asked again, and the switchboard says what it said.
      const answer = await within(FLIP_ANSWER_MS, switchboardOf(this.#deployment()).flip(request));
      if (answer === undefined || !answer.flipped) return;
      const { status, opened } = answer.state;
      if (status !== "done" && opened === null) return;
      this.#kept.delete("handover", request.id);
      this.#handovers.delete(request.id);
    } catch {
      // Out of reach. The instance is stopped already; the alarm asks again.
    }
  }
}
