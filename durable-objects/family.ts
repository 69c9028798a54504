import type { Limits } from "../src/config/define.ts";
import type { Deployment } from "../src/deployment.ts";
import {
  type Amounts,
  add,
  carve,
  NOTHING,
  reservedOf,
  type Spent,
  settleBucket,
  spendable,
  spentOf,
  withoutChildren,
} from "../src/instance/carve.ts";
import type { Enrolment } from "../src/instance/contract.ts";
import {
  type DelegateAnswer,
  type DelegateRefusal,
  type DelegateRequest,
  type EndChildAnswer,
  endOfChildrenMs,
} from "../src/instance/family.ts";
import { instanceOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import { delegatedFields, endedFields, returnedFields } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import { LastWord } from "./last-word.ts";
import type { Ledger } from "./ledger.ts";

/** A child that was reserved for, and of whose enrolment nobody has spoken for so long: its Worker is gone. */
const UNCONFIRMED_MS = 60_000;
/** Whoever has not answered is asked again after this. */
const RETRY_MS = 5_000;
/** Longer than an instance takes to cut its calls. */
const ANSWER_MS = 8_000;
const ASKED_AT_ONCE = 50;

/** A child, for as long as something is reserved for it. */
export interface Child {
  /** Of its first grant: with the id this names one delegation. */
  readonly grant: string;
  readonly reserved: Amounts;
  /** `disowned`: it is to end, since it came to nothing, or by its parent's wish. `told`: it was ended, and has acknowledged it. */
  readonly state: "reserved" | "living" | "disowned" | "told";
  readonly atMs: number;
}

export interface Totals {
  readonly children: number;
  /** By those that have ended, and all below them. */
  readonly spent: Spent;
}

export interface FamilyOptions {
  readonly kept: Kept;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  readonly ledger: () => Ledger;
  readonly deadReason: (nowMs: number) => string | null;
  /** Calls that hold a place. */
  readonly running: (nowMs: number) => number;
  /** Puts on record what stops the instance, where that is in memory alone. */
  readonly keep: () => void;
  readonly wakeBy: (atMs: number) => void;
  readonly waitUntil: (work: Promise<unknown>) => void;
}

/**
 * An instance as a parent, and as a child: what is carved out of its limits, who is to end with it, and the word to its own parent.
 * INVARIANT: what stands here for a child goes only by that child's word, or where it never was one and can't become one.
 */
export class Family {
  readonly #options: FamilyOptions;
  readonly #children: Map<string, Child>;
  #totals: Totals;
  #isBarred: boolean;
  readonly #lastWord: LastWord;
  #limits: Limits | null = null;
  #tending: Promise<void> | null = null;
  #triedAtMs = 0;

  constructor(options: FamilyOptions) {
    this.#options = options;
    this.#children = options.kept.take<Child>("child");
    const family = options.kept.take<unknown>("family");
    this.#totals = (family.get("totals") as Totals | undefined) ?? { children: 0, spent: NOTHING };
    this.#isBarred = family.has("barred");
    const { kept, deployment, ledger, running, keep } = options;
    const isChildless = () => this.#children.size === 0;
    this.#lastWord = new LastWord({ kept, deployment, ledger, running, keep, isChildless }, family.has("reported"));
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** What the instance may still use by itself. The same object until a child comes or goes: an ordinary call computes nothing. */
  limits({ limits }: Enrolment): Limits {
    this.#limits ??= this.#totals.children === 0 ? limits : withoutChildren(limits, this.#taken());
    return this.#limits;
  }

  #taken(): Amounts {
    return [...this.#children.values()].reduce((sum, { reserved }) => add(sum, reserved), this.#totals.spent);
  }

  // --- as a parent ------------------------------------------------------------------------------------------------

  /**
   * INVARIANT: synchronous. Of children that race for what is left, each finds what the one before has taken. The record, the
   * reservation and the proof's `jti` are one commit, and it stands before anything of the child does.
   */
  delegate(
    request: DelegateRequest,
    jti: { readonly id: string; readonly untilMs: number },
    nowMs: number,
  ): DelegateAnswer {
    const ledger = this.#ledger;
    const { enrolment, state } = ledger;
    const { child, grant } = request;
    if (enrolment === null || ledger.log.isClosed || this.#options.deadReason(nowMs) !== null)
      return no({ kind: "dead" });
    if (grant.expiresAtMs <= nowMs) return no({ kind: "dead" });
    const refusal = this.#refusalOf(enrolment, request);
    if (refusal !== null) return no(refusal);
    const mine = this.limits(enrolment);
    const bucket = settleBucket(state.usage, mine, nowMs);
    const used = { ...spentOf(bucket), concurrency: this.#options.running(nowMs) };
    const limits = carve(mine, used, request.ceiling, request.asked, this.#places(enrolment));
    if (!limits.ok) return no({ kind: "limit", limit: limits.error });
    if (ledger.isFull) return no({ kind: "unavailable" });

    // Its first calls come out of the parent's bucket, too.
    const tokens = Math.min(limits.value.burst, Math.floor(bucket.tokens));
    ledger.change({ usage: { ...bucket, tokens: bucket.tokens - tokens } });
    const { deployment } = request;
    ledger.record("delegated", nowMs, delegatedFields(child, limits.value), { deployment, grant: grant.id, jti });
    const reserved = reservedOf(limits.value, enrolment.limits);
    this.#keep(child.instance, { grant: child.grant, reserved, state: "reserved", atMs: nowMs });
    this.#keepTotals({ ...this.#totals, children: this.#totals.children + 1 });
    this.#options.wakeBy(nowMs + UNCONFIRMED_MS);
    // Dying here leaves a reservation without a child: the alarm makes sure that none comes, and takes it back.
    return { delegated: true, limits: limits.value, tokens };
  }

  #bounds({ agent }: Pick<Enrolment, "agent">) {
    const { agents } = this.#options.deployment().config;
    return Object.hasOwn(agents, agent) ? agents[agent]!.delegation : { agents: [], depth: 0, breadth: 0, total: 0 };
  }

  #refusalOf(enrolment: Enrolment, { child, grant }: DelegateRequest): DelegateRefusal | null {
    const { instance, ancestors, chain } = enrolment;
    const bounds = this.#bounds(enrolment);
    if (!bounds.agents.includes(child.agent)) return { kind: "agent" };
    // Whoever stands above bounds how far down it goes: the last of the chain is this instance, one level above the child.
    if (chain.some((actor, i) => chain.length - i > this.#bounds(actor).depth)) return { kind: "depth" };
    if ([instance, ...ancestors, ...this.#children.keys()].includes(child.instance)) return { kind: "known-key" };
    if (child.deadlineMs > endOfChildrenMs(enrolment, grant, this.#options.deployment().config))
      return { kind: "deadline" };
    if (this.#children.size >= bounds.breadth) return { kind: "breadth" };
    if (this.#totals.children >= bounds.total) return { kind: "total" };
    return null;
  }

  #places(enrolment: Enrolment): number {
    const { breadth, total } = this.#bounds(enrolment);
    return Math.min(breadth - this.#children.size, total - this.#totals.children);
  }

  /** Once it is enrolled, and before its grant is signed. */
  confirm(id: string, grant: string, nowMs: number): boolean {
    const child = this.#children.get(id);
    if (child?.grant !== grant || this.#ledger.log.isClosed || this.#options.deadReason(nowMs) !== null) return false;
    if (child.state === "told" || this.#isToEnd(child, nowMs)) return false;
    if (child.state !== "living") this.#keep(id, { ...child, state: "living" });
    return true;
  }

  disown(id: string, grant: string): void {
    const child = this.#children.get(id);
    if (child?.grant !== grant || child.state === "told") return;
    this.#keep(id, { ...child, state: "disowned" });
    this.tend();
  }

  /** Ends one child, on record here before it hears of it. One that was told before is asked nothing. */
  async endChild(
    id: string,
    beside: { readonly grant: string; readonly deployment: string; readonly jti: { id: string; untilMs: number } },
    nowMs: number,
  ): Promise<EndChildAnswer> {
    const child = this.#children.get(id);
    const ledger = this.#ledger;
    if (child === undefined || ledger.enrolment === null) return "unknown";
    if (child.state === "told") return "ended";
    // Who asks again, or whose transcript is over, is on record already.
    if (child.state !== "disowned" && !ledger.log.isClosed) {
      this.#keep(id, { ...child, state: "disowned" });
      ledger.record("delegated", nowMs, endedFields(id), beside);
      this.#options.wakeBy(nowMs + RETRY_MS);
    }
    // Dying here, the alarm ends it.
    await this.#end(id, ledger.enrolment.instance);
    return this.#children.get(id)?.state === "disowned" ? "unheard" : "ended";
  }

  /**
   * What a child has not spent comes back with this, once: what was reserved for it stands here no more. Said again, as by who
   * has not heard that it was heard, it means that delegation alone, and not another of the same key.
   */
  ended(id: string, grant: string, spent: Spent, nowMs: number): void {
    const child = this.#children.get(id);
    const ledger = this.#ledger;
    if (child?.grant !== grant || ledger.enrolment === null) return;
    const bucket = settleBucket(ledger.state.usage, this.limits(ledger.enrolment), nowMs);
    if (!ledger.log.isClosed) {
      ledger.change({ usage: bucket });
      ledger.record("delegated", nowMs, returnedFields(id, spent));
    }
    this.#children.delete(id);
    this.#options.kept.delete("child", id);
    this.#keepTotals({ ...this.#totals, spent: add(this.#totals.spent, spent) });
    this.tend();
  }

  #keep(id: string, child: Child): void {
    this.#options.kept.put("child", id, child);
    this.#children.set(id, child);
    this.#limits = null;
  }

  #keepTotals(totals: Totals): void {
    this.#options.kept.put("family", "totals", totals);
    this.#totals = totals;
    this.#limits = null;
  }

  #isToEnd({ state, atMs }: Child, nowMs: number): boolean {
    if (state === "told") return false;
    const isOverdue = state === "reserved" && nowMs >= atMs + UNCONFIRMED_MS;
    // A switch has reached them by their rosters, as descendants: its receipt counts them, so they are not ended from here.
    return state === "disowned" || isOverdue || this.#ledger.state.stopped === "revoked";
  }

  // --- as a child -------------------------------------------------------------------------------------------------

  /** A parent has given up waiting for this enrolment: it must not come any more. */
  bar(): void {
    if (!this.#isBarred) this.#options.kept.put("family", "barred", true);
    this.#isBarred = true;
  }

  get isBarred(): boolean {
    return this.#isBarred;
  }

  // --- time -------------------------------------------------------------------------------------------------------

  /** Ends who is to end, and reports. Beside what asks for it, one at a time; what does not get through, the alarm tries again. */
  tend(): void {
    const nowMs = Date.now();
    const lookAgainAtMs = this.#lastWord.lookAgainAtMs(nowMs);
    if (lookAgainAtMs !== null) this.#options.wakeBy(lookAgainAtMs);
    if (!this.#hasToTend(nowMs)) return;
    this.#options.wakeBy(nowMs + RETRY_MS);
    this.#tending ??= this.#tendNow().finally(() => {
      this.#tending = null;
    });
    this.#options.waitUntil(this.#tending);
  }

  async #tendNow(): Promise<void> {
    this.#triedAtMs = Date.now();
    const { enrolment } = this.#ledger;
    if (enrolment === null) return;
    try {
      const toEnd = [...this.#children].filter(([, child]) => this.#isToEnd(child, Date.now()));
      for (let i = 0; i < toEnd.length; i += ASKED_AT_ONCE)
        await Promise.all(toEnd.slice(i, i + ASKED_AT_ONCE).map(([id]) => this.#end(id, enrolment.instance)));
      if (this.#lastWord.isDue(Date.now())) await this.#lastWord.say(this.#spentBelow());
    } catch {
      // The alarm that was armed for it does it again.
    }
  }

  async #end(id: string, parent: string): Promise<void> {
    const grant = this.#children.get(id)?.grant;
    if (grant === undefined) return;
    const deployment = this.#options.deployment();
    const asking = instanceOf(deployment, id).endAsChildOf(parent, deployment.version, grant);
    const answer = await within(ANSWER_MS, asking).catch(() => undefined);
    const child = this.#children.get(id);
    if (child?.grant !== grant) return;
    // Nothing was ever spent by who never was.
    if (answer === "absent") this.ended(id, grant, NOTHING, Date.now());
    else if (answer === "ending") this.#keep(id, { ...child, state: "told" });
  }

  /** Of children that have not spoken, all that they may have spent. */
  #spentBelow(): Amounts {
    return [...this.#children.values()].reduce(
      (sum, { reserved }) => add(sum, spendable(reserved)),
      this.#totals.spent,
    );
  }

  #hasToTend(nowMs: number): boolean {
    return this.#lastWord.isDue(nowMs) || [...this.#children.values()].some((child) => this.#isToEnd(child, nowMs));
  }

  /** When there is something to do; null: nothing. */
  dueAtMs(nowMs: number): number | null {
    if (this.#hasToTend(nowMs)) return Math.max(nowMs, this.#triedAtMs + RETRY_MS);
    const children = [...this.#children.values()];
    const times = children.filter(({ state }) => state === "reserved").map(({ atMs }) => atMs + UNCONFIRMED_MS);
    const lookAgainAtMs = this.#lastWord.lookAgainAtMs(nowMs);
    if (lookAgainAtMs !== null) times.push(lookAgainAtMs);
    return times.length === 0 ? null : Math.min(...times);
  }
}

const no = (refusal: DelegateRefusal): DelegateAnswer => ({ delegated: false, refusal });
