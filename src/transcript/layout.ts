/**
 * Where things lie in the bucket. Two prefixes, so that locks (transcripts) and erasure (bodies) follow different
 * rules; hive-partitioned, so that DuckDB, Spark or any S3 tool reads them as tables.
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
