import * as z from "zod";
import { MAX_AMOUNT } from "../metering/amounts.ts";
import { entries } from "./layers.ts";
import { agentName, positive, unitName, versionName } from "./names.ts";

/** Registered kinds of software, and how much of them there may be. */

export const limits = z.strictObject({
  /** Token bucket: sustained calls a second, and how many at once after a rest. */
  callsPerSecond: z.number().positive().default(10),
  burst: positive.default(20),
  /** Calls of one instance running at the same time. */
  concurrency: positive.default(10),
  /** Budgets of the whole grant, until the task ends. */
  calls: positive.default(10_000),
  bytes: positive.default(1_073_741_824),
  /** Budgets of metered units, by the unit's name; money is one of them. A unit that is not here is not bounded here. */
  units: z.record(unitName, z.number().positive().max(MAX_AMOUNT)).default({}),
  /** Beyond this many a minute, refusals share one counted record. */
  refusalsRecordedPerMinute: positive.default(30),
});

const manifest = z.strictObject({
  model: z.string().min(1),
  promptDigest: z.string().min(1),
  tools: z.record(z.string(), z.string()).default({}),
});

/** What an instance of this agent may delegate. The roster and every record name the whole lineage, so it is short. */
const DEPTH_MAX = 8;
/** Each living one has a row at its parent, which asks each to end. */
const BREADTH_MAX = 1_000;

const delegation = z.strictObject({
  /** Registered agents that its instances may provision as sub-agents. None unless they are named. */
  agents: z.array(agentName).readonly().default([]),
  /** How many levels may stand below an instance of it. The bounds of all that stand above hold as well. */
  depth: positive.max(DEPTH_MAX).default(1),
  /** How many children of one instance may live at the same time, */
  breadth: positive.max(BREADTH_MAX).default(10),
  /** and how many it may have in all. */
  total: positive.max(1_000_000).default(100),
});
export type DelegationBounds = z.output<typeof delegation>;

export const agent = z.strictObject({
  versions: z.record(versionName, manifest).refine((v) => Object.keys(v).length > 0, "at least one version"),
  ceiling: entries,
  limits: limits.prefault({}),
  delegation: delegation.prefault({}),
});
