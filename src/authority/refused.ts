import type { Deployment } from "../deployment.ts";
import { journalOf, type RefusedDoor } from "../objects.ts";
import type { Fields } from "../transcript/envelope.ts";
import { within } from "../within.ts";
import { RefusalGauge } from "./refusal-gauge.ts";

const APPEND_TIMEOUT_MS = 5_000;

/** Of this isolate. Plain numbers: nothing in them belongs to a request. */
const gauges: Readonly<Record<RefusedDoor, RefusalGauge>> = {
  "authority-refused": new RefusalGauge(),
  "admin-refused": new RefusalGauge(),
  "signals-refused": new RefusalGauge(),
};

/**
 * Puts the refusal of who has not authenticated on record, or counts it. Never throws, and says nothing of what came of it: the answer
 * is the same, or a flood could take it from everybody else.
 */
export async function recordUnauthenticated(
  deployment: Deployment,
  door: RefusedDoor,
  fields: () => Fields,
): Promise<void> {
  const nowMs = Date.now();
  const suppressed = gauges[door].take(nowMs);
  if (suppressed === null) return;
  const appended = journalOf(deployment, door, nowMs)
    .append({
      type: "refused",
      deployment: deployment.version,
      fields: suppressed === 0 ? fields() : { ...fields(), suppressed },
    })
    .catch(() => false);
  // Late is not lost: then some may be counted twice, and none is forgotten.
  if ((await within(APPEND_TIMEOUT_MS, appended)) !== true) gauges[door].giveBack(suppressed + 1);
}
