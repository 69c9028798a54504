import { describe, expect, it } from "vitest";
import { type Rule, SIGNALS, type Signal } from "../../src/config/rules.ts";
import {
  calm,
  decide,
  type Hit,
  type NamedRule,
  type RuleState,
  rulesFor,
  signalFields,
  switchOf,
} from "../../src/control/rules.ts";
import { BUCKETS, type InstanceEvent } from "../../src/control/signals.ts";
import { absent, type Denial, type Layer, unauthenticated, unavailable } from "../../src/denial.ts";

const NOW_MS = 1_900_000_000_000;
const BUDGETS = { calls: 100, bytes: 1_000 };

const refused = (denial: Denial): InstanceEvent => ({ kind: "refused", denial });
const PROBE = refused(absent("route", "no such upstream"));
const REPLAY = refused(unauthenticated("invalid_dpop_proof", "replay"));
const LIMITED = refused({ kind: "limited", limit: "rate", retryAfterSeconds: 1 });
const ADMITTED: InstanceEvent = { kind: "admitted", bytes: 10 };
const PASSED: InstanceEvent = { kind: "passed", bytes: 10 };
const answered = (change: Partial<Extract<InstanceEvent, { kind: "answered" }>> = {}): InstanceEvent => ({
  kind: "answered",
  bytes: 0,
  outcome: "complete",
  status: 200,
  ...change,
});
const FAILED = answered({ status: 503 });

const ruleOf = (signal: Signal, threshold: number, change: Partial<Rule> = {}): Rule => ({
  signal,
  threshold,
  windowSeconds: signal === "refusals-in-a-row" ? undefined : 60,
  mode: "observe",
  act: "pause",
  reach: "instance",
  untilSeconds: undefined,
  agents: undefined,
  ...change,
});

/** Rules over one instance's life: what each event hits. */
class Life {
  readonly rules: readonly NamedRule[];
  states: readonly RuleState[];
  constructor(rules: Readonly<Record<string, Rule>>) {
    this.rules = rulesFor(rules, "bot");
    this.states = calm(this.rules);
  }
  see(event: InstanceEvent, atMs = 0): readonly Hit[] {
    const { states, hits } = decide(this.rules, this.states, event, BUDGETS, NOW_MS + atMs);
    this.states = states;
    return hits;
  }
  /** The value of each hit; null where there was none. */
  value(event: InstanceEvent, atMs = 0): number | null {
    return this.see(event, atMs)[0]?.value ?? null;
  }
}

const ONE_OF: Readonly<Record<Signal, InstanceEvent>> = {
  "refusals-in-a-row": PROBE,
  refusals: PROBE,
  "unknown-paths": PROBE,
  "rate-limit-hits": LIMITED,
  "replayed-proofs": REPLAY,
  "calls-burn": ADMITTED,
  "bytes-burn": PASSED,
  "upstream-errors": FAILED,
  "second-copy": { kind: "second-copy" },
};

describe("a threshold", () => {
  it.each(SIGNALS.filter((signal) => !signal.endsWith("burn")))("of %s: not one below, but at it", (signal) => {
    const life = new Life({ r: ruleOf(signal, 3) });
    expect([1, 2, 3].map(() => life.value(ONE_OF[signal]))).toEqual([null, null, 3]);
  });

  // 0.57 * 100 is less than 57 in doubles, and 0.07 * 100 is more than 7.
  it.each([0.01, 0.07, 0.57, 1])("of calls-burn at %d of the budget, exactly", (threshold) => {
    const life = new Life({ r: ruleOf("calls-burn", threshold) });
    const values = Array.from({ length: Math.round(threshold * 100) }, () => life.value(ADMITTED));
    expect(values.pop()).toBe(threshold);
    expect(values.every((value) => value === null)).toBe(true);
  });

  it("of bytes-burn counts what came along with calls, runs and answers, and no refusal", () => {
    const life = new Life({ r: ruleOf("bytes-burn", 0.04) });
    expect(life.value(ADMITTED)).toBeNull();
    expect(life.value(PASSED)).toBeNull();
    expect(life.value(answered({ bytes: 10 }))).toBeNull();
    expect(life.value(PROBE)).toBeNull();
    expect(life.value({ kind: "passed", bytes: 9 })).toBeNull();
    expect(life.value({ kind: "passed", bytes: 1 })).toBe(0.04);
  });
});

describe("what counts for a signal", () => {
  const LAYERS: Layer[] = ["route", "describe", "grant", "entitlement", "agent", "boundaries", "switch"];
  const EVENTS: readonly [name: string, event: InstanceEvent][] = [
    ...LAYERS.map((layer): [string, InstanceEvent] => [layer, refused(absent(layer, "r"))]),
    ["replay", REPLAY],
    ["expired", refused(unauthenticated("invalid_token", "expired"))],
    ["rate", LIMITED],
    ["concurrency", refused({ kind: "limited", limit: "concurrency", retryAfterSeconds: 1 })],
    ["budget", refused({ kind: "exhausted", budget: "calls" })],
    ["too large", refused({ kind: "too-large", reason: "r" })],
    ["unavailable", refused(unavailable("r"))],
    ["admitted", ADMITTED],
    ["passed", PASSED],
    ["200", answered()],
    ["404", answered({ status: 404 })],
    ["499", answered({ status: 499 })],
    ["500", answered({ status: 500 })],
    ["upstream-failed", answered({ outcome: "upstream-failed", status: null })],
    ["timeout", answered({ outcome: "timeout", status: 200 })],
    ["cut", answered({ outcome: "cut", status: 200 })],
    ["client-gone", answered({ outcome: "client-gone", status: null })],
    ["second copy", { kind: "second-copy" }],
  ];
  const REFUSALS = [...LAYERS, "replay", "expired", "rate", "concurrency", "budget", "too large", "unavailable"];
  it.each<[Signal, string[]]>([
    ["refusals", REFUSALS],
    ["refusals-in-a-row", REFUSALS],
    ["unknown-paths", ["route", "describe", "grant"]],
    ["rate-limit-hits", ["rate", "concurrency"]],
    ["replayed-proofs", ["replay"]],
    ["calls-burn", ["admitted"]],
    ["upstream-errors", ["500", "upstream-failed", "timeout"]],
    ["second-copy", ["second copy"]],
  ])("%s", (signal, expected) => {
    const threshold = signal === "calls-burn" ? 0.01 : 1;
    const counted = EVENTS.filter(([, event]) => new Life({ r: ruleOf(signal, threshold) }).see(event).length > 0);
    expect(counted.map(([name]) => name)).toEqual(expected);
  });
});

describe("a row", () => {
  it("ends with a call that is admitted, and with nothing else", () => {
    const life = new Life({ r: ruleOf("refusals-in-a-row", 3) });
    const values = [PROBE, PROBE, ADMITTED, PROBE, answered(), PASSED, PROBE, PROBE].map((event) => life.value(event));
    expect(values).toEqual([null, null, null, null, null, null, null, 3]);
  });

  it("knows no time", () => {
    const life = new Life({ r: ruleOf("refusals-in-a-row", 2) });
    expect(life.value(PROBE)).toBeNull();
    expect(life.value(PROBE, 1_000_000_000)).toBe(2);
  });

  it("hits once, however long it gets; the next row hits again", () => {
    const life = new Life({ r: ruleOf("refusals-in-a-row", 2) });
    const hits = (events: readonly InstanceEvent[]) => events.flatMap((event) => life.see(event)).length;
    expect(hits(Array<InstanceEvent>(50).fill(PROBE))).toBe(1);
    expect(hits([ADMITTED, PROBE, PROBE, PROBE])).toBe(1);
  });
});

describe("a window", () => {
  const STEP_MS = 60_000 / BUCKETS;

  it("counts on for its whole length, and at most one step longer", () => {
    for (const offsetMs of [0, 1, STEP_MS - 1]) {
      const within = new Life({ r: ruleOf("refusals", 2) });
      within.see(PROBE, offsetMs);
      expect(within.value(PROBE, offsetMs + 60_000)).toBe(2);
      const after = new Life({ r: ruleOf("refusals", 2) });
      after.see(PROBE, offsetMs);
      expect(after.value(PROBE, offsetMs + 60_000 + STEP_MS)).toBeNull();
    }
  });

  it("slides: no burst passes over the edge of a minute", () => {
    const life = new Life({ r: ruleOf("refusals", 10) });
    const values = Array.from({ length: 10 }, (_, i) => life.value(PROBE, 55_000 + i * 1_000));
    expect(values).toEqual([...Array<null>(9).fill(null), 10]);
  });

  it("lets a trickle below the threshold pass for ever", () => {
    const life = new Life({ r: ruleOf("refusals", 10) });
    for (let i = 0; i < 2_000; i++) expect(life.see(PROBE, i * 7_000)).toEqual([]);
  });

  it("forgets all after a long silence", () => {
    const life = new Life({ r: ruleOf("refusals", 3) });
    life.see(PROBE);
    life.see(PROBE);
    expect(life.value(PROBE, 1_000_000_000)).toBeNull();
  });

  it.each([1, 7, 3_600])("of %d s is as long as it says", (windowSeconds) => {
    const life = new Life({ r: ruleOf("refusals", 2, { windowSeconds }) });
    life.see(PROBE);
    expect(life.value(PROBE, windowSeconds * 1_000)).toBe(2);
    const late = new Life({ r: ruleOf("refusals", 2, { windowSeconds }) });
    late.see(PROBE);
    expect(late.value(PROBE, windowSeconds * 1_000 * (1 + 1 / BUCKETS) + 1)).toBeNull();
  });

  it("hits once while it is observed, and again when a window has passed", () => {
    const life = new Life({ r: ruleOf("refusals", 2) });
    const hitAtMs = Array.from({ length: 300 }, (_, i) => i * 1_000).filter((atMs) => life.see(PROBE, atMs).length > 0);
    expect(hitAtMs).toEqual([1_000, 62_000, 123_000, 184_000, 245_000]);
  });
});

describe("a clock that goes back", () => {
  it("forgets nothing: a little", () => {
    const life = new Life({ r: ruleOf("refusals", 3) });
    life.see(PROBE, 30_000);
    life.see(PROBE, 0);
    expect(life.value(PROBE, 15_000)).toBe(3);
  });

  it("forgets nothing, and counts on for one window: by a day", () => {
    const life = new Life({ r: ruleOf("refusals", 3) });
    life.see(PROBE, 86_400_000);
    life.see(PROBE, 0);
    expect(life.value(PROBE, 60_000)).toBe(3);
    const calmed = new Life({ r: ruleOf("refusals", 3) });
    calmed.see(PROBE, 86_400_000);
    calmed.see(PROBE, 0);
    expect(calmed.value(PROBE, 62_000)).toBeNull();
  });

  it("silences an observed rule for no longer than a window", () => {
    const life = new Life({ r: ruleOf("refusals", 1) });
    expect(life.value(PROBE, 86_400_000)).toBe(1);
    expect(life.value(PROBE, 0)).toBeNull();
    expect(life.value(PROBE, 62_000)).not.toBeNull();
  });
});

describe("an enforced rule", () => {
  it.each<[Signal, number, InstanceEvent]>([
    ["refusals-in-a-row", 2, PROBE],
    ["refusals", 2, PROBE],
    ["calls-burn", 0.02, ADMITTED],
  ])("begins anew after its hit, for who is resumed: %s", (signal, threshold, event) => {
    const life = new Life({ r: ruleOf(signal, threshold, { mode: "enforce" }) });
    const hits = [1, 2, 3, 4].map(() => life.see(event).length);
    expect(hits).toEqual([0, 1, 0, 1]);
  });
});

describe("memory", () => {
  it("has a size that no number of events changes", () => {
    const rules = Object.fromEntries(SIGNALS.map((s) => [s, ruleOf(s, s.endsWith("burn") ? 1 : 1_000_000_000)]));
    const life = new Life(rules);
    const events = Object.values(ONE_OF);
    for (let i = 0; i < 20_000; i++) life.see(events[i % events.length]!, i * 37);
    for (const { window } of life.states) expect(window.counts.length).toBeLessThanOrEqual(BUCKETS + 1);
    expect(JSON.stringify(life.states).length).toBeLessThan(SIGNALS.length * 600);
  });
});

describe("rules", () => {
  it("watch the agents that they name, or all", () => {
    const rules = {
      all: ruleOf("refusals", 1),
      bots: ruleOf("refusals", 1, { agents: ["bot"] }),
      others: ruleOf("refusals", 1, { agents: ["other", "constructor"] }),
    };
    expect(rulesFor(rules, "bot").map(({ name }) => name)).toEqual(["all", "bots"]);
    expect(rulesFor(rules, "stranger").map(({ name }) => name)).toEqual(["all"]);
    expect(rulesFor({}, "bot")).toEqual([]);
  });

  it("count each for itself, and hit together", () => {
    const life = new Life({ one: ruleOf("refusals", 1), two: ruleOf("unknown-paths", 2), row: ruleOf("refusals", 2) });
    expect(life.see(LIMITED).map(({ rule }) => rule.name)).toEqual(["one"]);
    expect(life.see(PROBE).map(({ rule }) => rule.name)).toEqual(["row"]);
    expect(life.see(PROBE).map(({ rule }) => rule.name)).toEqual(["two"]);
  });

  it("say of a hit what the record needs", () => {
    const life = new Life({ r: ruleOf("refusals", 1), row: ruleOf("refusals-in-a-row", 1, { mode: "enforce" }) });
    expect(life.see(PROBE).map(signalFields)).toEqual([
      {
        rule: "r",
        signal: "refusals",
        value: 1,
        threshold: 1,
        windowSeconds: 60,
        mode: "observe",
        act: "pause",
        reach: "instance",
      },
      {
        rule: "row",
        signal: "refusals-in-a-row",
        value: 1,
        threshold: 1,
        windowSeconds: null,
        mode: "enforce",
        act: "pause",
        reach: "instance",
      },
    ]);
  });

  const WHO = { instance: "i-1", task: "t-1", human: "h-1", agent: "bot" };
  it.each<[Rule["reach"], object]>([
    ["instance", { instance: "i-1" }],
    ["task", { task: "t-1" }],
    ["human", { human: "h-1" }],
    ["agent", { agent: "bot" }],
  ])("make a switch that reaches the %s", (reach, target) => {
    const rule = { ...ruleOf("refusals", 1, { reach, act: "kill" }), name: "r" };
    expect(switchOf({ rule, value: 1 }, WHO, "id-1", NOW_MS)).toEqual({
      id: "id-1",
      reach,
      target,
      act: "kill",
      reason: "refusals: 1 within 60 s, threshold 1",
      by: "rule:r",
      cause: { kind: "rule", rule: "r", instance: "i-1" },
      atMs: NOW_MS,
      untilMs: null,
    });
  });

  it("make a pause that opens by itself", () => {
    const rule = { ...ruleOf("refusals-in-a-row", 1, { untilSeconds: 30 }), name: "r" };
    expect(switchOf({ rule, value: 1 }, WHO, "id-1", NOW_MS)).toMatchObject({
      act: "pause",
      reason: "refusals-in-a-row: 1, threshold 1",
      untilMs: NOW_MS + 30_000,
    });
  });
});
