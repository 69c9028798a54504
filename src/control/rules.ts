import { isBurn, type Rule, type Signal } from "../config/rules.ts";
import type { Fields } from "../transcript/envelope.ts";
import { amountOf, BUCKETS, count, EMPTY_WINDOW, type InstanceEvent, totalOf, type Window } from "./signals.ts";
import type { Switch, Target } from "./switch.ts";

/** Automatic switches: what happens at an instance goes in, what a rule has to say of it comes out. Pure. */

export interface NamedRule extends Rule {
  readonly name: string;
}

/** What a rule remembers. In memory alone, and of a size that no event changes. */
export interface RuleState {
  /** Refusals since the last call. */
  readonly row: number;
  readonly window: Window;
  /** The bucket from which on it may hit again. */
  readonly quietUntil: number;
}

export interface Hit {
  readonly rule: NamedRule;
  readonly value: number;
}

export interface Budgets {
  readonly calls: number;
  readonly bytes: number;
}

const CALM: RuleState = { row: 0, window: EMPTY_WINDOW, quietUntil: 0 };

/** Those that watch this agent. */
export const rulesFor = (rules: Readonly<Record<string, Rule>>, agent: string): readonly NamedRule[] =>
  Object.entries(rules).flatMap(([name, rule]) =>
    rule.agents === undefined || rule.agents.includes(agent) ? [{ ...rule, name }] : [],
  );

export const calm = (rules: readonly NamedRule[]): readonly RuleState[] => rules.map(() => CALM);

/** @param states one for each rule, in the same order */
export function decide(
  rules: readonly NamedRule[],
  states: readonly RuleState[],
  event: InstanceEvent,
  budgets: Budgets,
  nowMs: number,
): { readonly states: readonly RuleState[]; readonly hits: readonly Hit[] } {
  const hits: Hit[] = [];
  const next = rules.map((rule, i) => {
    const { state, value } = step(rule, states[i] ?? CALM, event, budgets, nowMs);
    if (value === null) return state;
    hits.push({ rule, value });
    // Whom it stopped begins anew when resumed. Whom it observes is not said to go on for as long as the window is.
    return rule.mode === "enforce" ? CALM : state;
  });
  return { states: next, hits };
}

interface Step {
  readonly state: RuleState;
  /** Of a hit; else null. */
  readonly value: number | null;
}

function step(rule: NamedRule, state: RuleState, event: InstanceEvent, budgets: Budgets, nowMs: number): Step {
  const { signal, threshold, windowSeconds } = rule;
  if (signal === "refusals-in-a-row") return stepRow(threshold, state, event);
  const amount = amountOf(signal, event);
  if (amount === 0) return { state, value: null };
  const window = count(state.window, (windowSeconds ?? 0) * 1_000, amount, nowMs);
  const until = window.newest + BUCKETS + 1;
  const value = totalOf(window) / unitOf(signal, budgets);
  if (value < threshold || window.newest < state.quietUntil)
    // Never longer than one window from now, should the clock have gone back.
    return { state: { ...state, window, quietUntil: Math.min(state.quietUntil, until) }, value: null };
  return { state: { ...state, window, quietUntil: until }, value };
}

/** One hit a row: at the refusal that makes it long enough. */
function stepRow(threshold: number, state: RuleState, event: InstanceEvent): Step {
  if (event.kind === "admitted") return { state: state.row === 0 ? state : { ...state, row: 0 }, value: null };
  if (event.kind !== "refused") return { state, value: null };
  const row = state.row + 1;
  return { state: { ...state, row }, value: row === threshold ? row : null };
}

/** A share is a quotient, so that at the threshold it is the very number that the configuration has. */
const unitOf = (signal: Signal, { calls, bytes }: Budgets): number =>
  isBurn(signal) ? (signal === "calls-burn" ? calls : bytes) : 1;

// --- what a hit becomes -------------------------------------------------------------------------------------------

/** On record. Of an observed hit, `act` and `reach` are what the rule would have done. */
export const signalFields = ({ rule, value }: Hit): Fields => ({
  rule: rule.name,
  signal: rule.signal,
  value,
  threshold: rule.threshold,
  windowSeconds: rule.windowSeconds ?? null,
  mode: rule.mode,
  act: rule.act,
  reach: rule.reach,
});

export interface Watched {
  readonly instance: string;
  readonly task: string;
  readonly human: string;
  readonly agent: string;
}

/** The switch that an enforced hit closes. Whatever its reach, who hit it is in it. */
export function switchOf({ rule, value }: Hit, who: Watched, id: string, nowMs: number): Switch {
  const { name, signal, threshold, windowSeconds, untilSeconds, act, reach } = rule;
  const target: Target = { [reach]: who[reach] };
  const time = windowSeconds === undefined ? "" : ` within ${windowSeconds} s`;
  return {
    id,
    reach,
    target,
    act,
    reason: `${signal}: ${value}${time}, threshold ${threshold}`,
    by: `rule:${name}`,
    cause: { kind: "rule", rule: name, instance: who.instance },
    atMs: nowMs,
    untilMs: untilSeconds === undefined ? null : nowMs + untilSeconds * 1_000,
  };
}
