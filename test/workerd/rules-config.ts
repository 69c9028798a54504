import type { RuleSource } from "../../src/config/rules.ts";

/** Rules for tests that want them: each watches the agent of its own name where it names none, and no other. */
const RULES: Readonly<Record<string, RuleSource>> = {
  observed: { signal: "refusals", threshold: 3, windowSeconds: 60, mode: "observe", act: "kill", reach: "human" },
  paused: { signal: "unknown-paths", threshold: 3, windowSeconds: 60, mode: "enforce" },
  "paused-for-a-time": { signal: "refusals-in-a-row", threshold: 2, mode: "enforce", untilSeconds: 3_600 },
  killed: { signal: "replayed-proofs", threshold: 2, windowSeconds: 60, mode: "enforce", act: "kill" },
  "killed-with-its-task": {
    signal: "refusals-in-a-row",
    threshold: 3,
    mode: "enforce",
    act: "kill",
    reach: "task",
  },
  "limits-hit": { signal: "rate-limit-hits", threshold: 1, windowSeconds: 60, mode: "enforce" },
  "calls-burnt": { signal: "calls-burn", threshold: 0.5, windowSeconds: 60, mode: "enforce" },
  "bytes-burnt": { signal: "bytes-burn", threshold: 0.5, windowSeconds: 60, mode: "enforce" },
  "twice-paused": {
    signal: "refusals",
    threshold: 1,
    windowSeconds: 60,
    mode: "enforce",
    reach: "task",
    agents: ["twice"],
  },
  "twice-killed": {
    signal: "unknown-paths",
    threshold: 1,
    windowSeconds: 60,
    mode: "enforce",
    act: "kill",
    agents: ["twice"],
  },
  "copied-paused": { signal: "second-copy", threshold: 1, windowSeconds: 600, mode: "enforce" },
  "copied-killed": { signal: "second-copy", threshold: 2, windowSeconds: 600, mode: "enforce", act: "kill" },
  "upstream-broken": { signal: "upstream-errors", threshold: 2, windowSeconds: 60, mode: "enforce" },
};

const agentsOf = (name: string, { agents = [name] }: RuleSource): readonly string[] => agents;

export const rules = Object.fromEntries(
  Object.entries(RULES).map(([name, rule]) => [name, { ...rule, agents: agentsOf(name, rule) }]),
);

/** The agents that are watched. */
export const watched = <Agent>(agent: Agent): Readonly<Record<string, Agent>> =>
  Object.fromEntries(Object.entries(RULES).flatMap((entry) => agentsOf(...entry).map((name) => [name, agent])));
