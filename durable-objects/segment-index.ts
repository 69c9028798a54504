import { shardOf } from "../src/control/shard.ts";
import type { Deployment } from "../src/deployment.ts";
import { indexOf } from "../src/objects.ts";
import type { IndexedLog } from "../src/transcript/segment-index.ts";
import { within } from "../src/within.ts";
import type { StoredSegment } from "./log-segments.ts";

/** An index that takes longer counts as out of reach. It may not hold up what the alarm has to do in time. */
const APPEND_TIMEOUT_MS = 10_000;

/**
 * Names a segment that stands in the bucket in the journal of its hour. Throws where that can't be: the segment stays in
 * the log, and is named later. Entries are at least once: who dies before this is noted names the same again, and readers
 * take equal entries for one.
 */
export async function nameInIndex(
  deployment: Deployment,
  of: IndexedLog,
  { first, last, head, fromMs, toMs, final, bodies }: StoredSegment,
): Promise<void> {
  const fields = { ...of, first, last, head, from: fromMs, to: toMs, final, bodies };
  const shard = shardOf(of.log, deployment.config.roster.shards);
  const append = async (hourMs: number, late: { late?: true }): Promise<boolean> => {
    const entry = { type: "stored", fields: { ...fields, ...late }, deployment: deployment.version } as const;
    const taken = await within(APPEND_TIMEOUT_MS, indexOf(deployment, hourMs, shard).append(entry));
    if (taken === undefined) throw new Error("the index of segments did not answer");
    return taken;
  };
  if (await append(toMs, {})) return;
  // Its hour was over a day ago.
  if (!(await append(Date.now(), { late: true }))) throw new Error("the index of segments takes no entry");
}
