import type { Mandate, MandateRefusal, MandateState } from "./contract.ts";
import { isWithin } from "./schedule.ts";

/** Pure: whether a mandate can be used now, as far as it is about the mandate itself. Null: it can. */
export function whyUnusable(
  { mandate, revoked }: Pick<MandateState, "mandate" | "revoked">,
  nowMs: number,
): MandateRefusal | null {
  if (revoked !== null) return "revoked";
  if (nowMs < mandate.notBeforeMs) return "not yet";
  if (nowMs >= mandate.expiresAtMs) return "expired";
  if (mandate.schedule !== null && !isWithin(mandate.schedule, nowMs)) return "outside of its schedule";
  return null;
}

/** Pure: whether another use is left. Null: it is. */
export function whyUsedUp({ maxUses, perDay }: Mandate, ever: number, today: number): MandateRefusal | null {
  if (maxUses !== null && ever >= maxUses) return "its uses are spent";
  if (perDay !== null && today >= perDay) return "the uses of this day are spent";
  return null;
}

/** Pure: no task under it is due later. */
export const latestDeadlineMs = ({ taskSeconds, expiresAtMs }: Mandate, nowMs: number): number =>
  Math.min(nowMs + taskSeconds * 1_000, expiresAtMs);
