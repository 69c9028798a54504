import { z } from "zod";
import { entries } from "./layers.ts";
import { positive, unitName, versionName } from "./names.ts";

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
  units: z.record(unitName, z.number().positive()).default({}),
  /** Beyond this many a minute, refusals share one counted record. */
  refusalsRecordedPerMinute: positive.default(30),
});

const manifest = z.strictObject({
  model: z.string().min(1),
  promptDigest: z.string().min(1),
  tools: z.record(z.string(), z.string()).default({}),
});

export const agent = z.strictObject({
  versions: z.record(versionName, manifest).refine((v) => Object.keys(v).length > 0, "at least one version"),
  ceiling: entries,
  limits: limits.prefault({}),
});
