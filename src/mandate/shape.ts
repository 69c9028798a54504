import * as z from "zod";
import { schedule } from "./schedule.ts";

/** What a human sends in order to approve, and what a mandate looks like to who reads it. */

/** The year 2100: beyond it no date can be printed. */
const TIME_MAX_MS = 4_102_444_800_000;
const timeMs = z.int().nonnegative().max(TIME_MAX_MS);
const positive = z.int().positive();
const name = z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, "a name, as in the configuration");

export const approveBody = z.strictObject({
  agent: name,
  /** The client that may exchange it. */
  platform: name,
  /** RFC 9396. Read by the language of scopes. */
  authorization_details: z.array(z.unknown()).min(1),
  purpose: z.string().trim().min(1).max(1_000),
  schedule: schedule.optional(),
  notBeforeMs: timeMs.optional(),
  expiresAtMs: timeMs,
  taskSeconds: positive,
  limits: z.strictObject({ calls: positive.optional(), bytes: positive.optional() }).prefault({}),
  maxUses: positive.optional(),
  perDay: positive.optional(),
});
export type ApproveBody = z.output<typeof approveBody>;

export const revokeBody = z.strictObject({ reason: z.string().trim().min(1).max(1_000) });
