import * as z from "zod";
import { MAX_AMOUNT } from "../metering/amounts.ts";
import { positive, unitName } from "./names.ts";

/** Limits that instances share. */

export const quotaName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes");

/** Whose calls count together. */
const sharer = z.enum(["task", "human", "agent", "upstream", "everything"]);
export type Sharer = z.output<typeof sharer>;

const PER = "task, human, agent, upstream, everything, or a list of two different ones of the first four";

const MAX_BYTES = 9_000_000_000_000_000;

export const quota = z
  .strictObject({
    /** One budget for each of these; of two, for each pair. */
    per: z.union(
      [
        sharer.transform((one): readonly Sharer[] => [one]),
        z
          .array(sharer.exclude(["everything"]))
          .min(1)
          .max(2)
          .readonly()
          .refine((names) => new Set(names).size === names.length, PER),
      ],
      { error: PER },
    ),
    /** Whose and which calls count; all, where they are left out. */
    agents: z.array(z.string()).min(1).readonly().optional(),
    upstreams: z.array(z.string()).min(1).readonly().optional(),
    calls: positive.optional(),
    bytes: positive.max(MAX_BYTES).optional(),
    units: z.record(unitName, z.number().positive().max(MAX_AMOUNT)).default({}),
    /** Calls running at the same time. */
    concurrency: positive.optional(),
    /** A token bucket: sustained calls a second, and how many at once after a rest (one second's, unless it is set). */
    callsPerSecond: z.number().positive().optional(),
    burst: positive.optional(),
    /** Calls, bytes and units are new whenever a period of this length begins, counted from 1970 (UTC). Without it they are for good. */
    periodSeconds: positive.max(366 * 86_400).optional(),
  })
  .superRefine(({ calls, bytes, units, concurrency, callsPerSecond, burst, periodSeconds }, ctx) => {
    const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    const hasBudget = calls !== undefined || bytes !== undefined || Object.keys(units).length > 0;
    if (!hasBudget && concurrency === undefined && callsPerSecond === undefined)
      wrong("per", "a quota of nothing: give calls, bytes, units, concurrency or callsPerSecond");
    if (burst !== undefined && callsPerSecond === undefined) wrong("burst", "only with callsPerSecond");
    if (periodSeconds !== undefined && !hasBudget) wrong("periodSeconds", "only with calls, bytes or units");
  });

export type QuotaConfig = z.output<typeof quota>;
