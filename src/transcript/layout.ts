/**
 * Where things lie in the bucket. Prefixes of their own, so that locks (transcripts, erasures) and erasure (bodies)
 * follow different rules; hive-partitioned, so that DuckDB, Spark or any S3 tool reads them as tables.
 */

/** Ids that stand in keys. */
export const KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;

export interface InstancePartition {
  readonly human: string;
  readonly task: string;
  readonly instance: string;
}

export const instancePartition = ({ human, task, instance }: InstancePartition): string => {
  if (![human, task, instance].every((id) => KEY_ID.test(id))) throw new Error("an id that can't stand in a key");
  return `human=${human}/task=${task}/instance=${instance}`;
};

export const journalPartition = (door: string, day: string): string => `journal=${door}/day=${day}`;

const tenDigits = (seq: number): string => String(seq).padStart(10, "0");

export const segmentKey = (partition: string, firstSeq: number): string =>
  `transcripts/${partition}/${tenDigits(firstSeq)}.jsonl.gz`;

/** Bodies of one segment come in volumes of bounded size; the first has no number. */
export const bodiesKey = (partition: string, firstSeq: number, volume: number): string =>
  `bodies/${partition}/${tenDigits(firstSeq)}${volume === 0 ? "" : `.${String(volume).padStart(3, "0")}`}.jsonl.gz`;

/** Parts of a call that can be too large for lines. The claims of an ID token are not. */
export type RawPart = "request" | "answer";

/** Of one raw object. Only the last of a body may hold less, and none holds nothing. */
export const RAW_OBJECT_MAX_BYTES = 8_388_608;

/** What a `raw` line names: all raw objects of one body. */
export const rawBodyName = (seq: number, part: RawPart): string => `${tenDigits(seq)}-${part}`;

/** Raw bytes of a body, as they passed, in objects of their own: `no` from 0, without gaps. */
export const rawBodyKey = (partition: string, seq: number, part: RawPart, no: number): string =>
  `bodies/${partition}/${rawBodyName(seq, part)}.${String(no).padStart(4, "0")}`;

/** The certificate of an erasure. It names the human in its key, because it may span tasks. */
export function erasureKey(human: string, erasure: string): string {
  if (![human, erasure].every((id) => KEY_ID.test(id))) throw new Error("an id that can't stand in a key");
  return `erasures/human=${human}/${erasure}.json`;
}
