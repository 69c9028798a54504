import * as z from "zod";
import { ACTS } from "../control/switch.ts";

/** What a rule can watch in an instance: each is counted in a window of time, but for the row, which a call ends. */
export const SIGNALS = [
  "refusals-in-a-row",
  "refusals",
  "unknown-paths",
  "rate-limit-hits",
  "replayed-proofs",
  "calls-burn",
  "bytes-burn",
  "upstream-errors",
  "second-copy",
] as const;
export type Signal = (typeof SIGNALS)[number];

/** Signals whose value is a share of the instance's budget. */
export const isBurn = (signal: Signal): signal is "calls-burn" | "bytes-burn" =>
  signal === "calls-burn" || signal === "bytes-burn";

export const ruleName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, "a lower-case name of at most 63 letters, digits and dashes");

/** A switch that closes by itself, or says when it would have. */
export const rule = z
  .strictObject({
    signal: z.enum(SIGNALS),
    /** A hit at this value and above: a number of events; of a burn, a share of the budget. */
    threshold: z.number().positive(),
    windowSeconds: z.number().int().positive().max(3_600).optional(),
    /** `observe` puts a hit on record, and does nothing else. */
    mode: z.enum(["observe", "enforce"]),
    act: z.enum(ACTS).default("pause"),
    reach: z.enum(["instance", "task", "human", "agent"]).default("instance"),
    /** A pause opens by itself after this; without it, when somebody resumes it. */
    untilSeconds: z.number().int().positive().max(31_536_000).optional(),
    /** All, where it is left out. */
    agents: z.array(z.string()).min(1).readonly().optional(),
  })
  .superRefine(({ signal, threshold, windowSeconds, act, untilSeconds }, ctx) => {
    const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    if (signal === "refusals-in-a-row" && windowSeconds !== undefined)
      wrong("windowSeconds", "not with refusals-in-a-row: a row ends with a call, not with time");
    if (signal !== "refusals-in-a-row" && windowSeconds === undefined)
      wrong("windowSeconds", `needed: ${signal} is counted in a window of 1 to 3600 seconds`);
    if (isBurn(signal) && threshold > 1) wrong("threshold", "a share of the budget: above 0, at most 1");
    if (!isBurn(signal) && !Number.isSafeInteger(threshold)) wrong("threshold", "a whole number of events");
    if (act === "kill" && untilSeconds !== undefined) wrong("untilSeconds", "not with kill, which is final");
  });

export type Rule = z.output<typeof rule>;
export type RuleSource = z.input<typeof rule>;
