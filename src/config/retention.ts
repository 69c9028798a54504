import * as z from "zod";

/** Six months, as Regulation (EU) 2024/1689 asks for logs at least (art. 19(1), 26(6)), however the months fall. */
export const LOCK_DAYS_MIN = 183;
const DAYS_MAX = 36_500;

const days = z.number().int().positive().max(DAYS_MAX);

/** How long the bucket keeps things, as the deployment sets it up there. Nothing in the Worker deletes by time. */
export const retention = z.strictObject({
  /** Envelopes and certificates of erasures can't be deleted or replaced for so long. Fewer than 183 take a flag of the deployment's own. */
  lockDays: days.default(LOCK_DAYS_MIN),
  /** Bodies go by themselves after so long, held or not; null: when they are erased. */
  bodiesDays: days.nullable().default(null),
});
export type Retention = z.output<typeof retention>;
