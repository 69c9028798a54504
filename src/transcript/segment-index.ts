import * as z from "zod";
import { journalPartition } from "./layout.ts";

/**
 * The index of segments: chained, sealed journals that name every segment of every other log that stands in the bucket, one
 * for each hour (UTC, of the segment's last record) and shard. It is the cheap way to a span of time, and what shows that
 * a whole transcript is gone.
 */
export const INDEX_DOOR = "segments";
export const INDEX_PREFIX = `transcripts/journal=${INDEX_DOOR}/`;

export const HOUR_MS = 3_600_000;
/** The bucket may be out for a while: so long after its hour a journal of the index takes entries. Then it ends. */
export const INDEX_OPEN_AFTER_HOUR_MS = 86_400_000;

export const hourOf = (atMs: number): number => atMs - (atMs % HOUR_MS);

/** E.g. `segments.2026-11-22T15.003`. */
export const indexJournalName = (atMs: number, shard: number): string =>
  `${INDEX_DOOR}.${new Date(atMs).toISOString().slice(0, 13)}.${threeDigits(shard)}`;

export const indexDayPrefix = (atMs: number): string =>
  `${INDEX_PREFIX}day=${new Date(atMs).toISOString().slice(0, 10)}/`;

/** The folder of the objects of one hour. */
export const indexHourPrefix = (atMs: number): string => {
  const [day, hour] = new Date(atMs).toISOString().slice(0, 13).split("T");
  return `${INDEX_PREFIX}day=${day}/hour=${hour}/`;
};

export interface IndexJournal {
  readonly name: string;
  /** In the bucket's keys. */
  readonly path: string;
  readonly hourMs: number;
  readonly shard: number;
  /** From then on it takes no entries. */
  readonly endsAtMs: number;
}

/** Undefined for what is no name of a journal of the index. */
export function parseIndexName(name: string): IndexJournal | undefined {
  const [, day, hour, shard] = /^segments\.(\d{4}-\d{2}-\d{2})T(\d{2})\.(\d{3})$/.exec(name) ?? [];
  return day === undefined ? undefined : indexJournal(day, hour!, shard!);
}

/** The same, by its place in the bucket. */
export function parseIndexPath(path: string): IndexJournal | undefined {
  const [, day, hour, shard] =
    /^journal=segments\/day=(\d{4}-\d{2}-\d{2})\/hour=(\d{2})\/shard=(\d{3})$/.exec(path) ?? [];
  return day === undefined ? undefined : indexJournal(day, hour!, shard!);
}

function indexJournal(day: string, hour: string, shard: string): IndexJournal | undefined {
  const hourMs = Date.parse(`${day}T${hour}:00:00Z`);
  // Date.parse takes the 31st of February, and the hour 24, for others.
  if (Number.isNaN(hourMs) || indexJournalName(hourMs, Number(shard)) !== `${INDEX_DOOR}.${day}T${hour}.${shard}`)
    return undefined;
  return {
    name: `${INDEX_DOOR}.${day}T${hour}.${shard}`,
    path: `journal=${INDEX_DOOR}/day=${day}/hour=${hour}/shard=${shard}`,
    hourMs,
    shard: Number(shard),
    endsAtMs: hourMs + HOUR_MS + INDEX_OPEN_AFTER_HOUR_MS,
  };
}

const threeDigits = (shard: number): string => String(shard).padStart(3, "0");
const count = z.number().int().nonnegative();

/** What an entry says of a segment, besides the frame of its record. */
export const storedShape = z.object({
  /** The instance's id, or the journal's name. */
  log: z.string(),
  /** Both null: it is of a journal. */
  human: z.string().nullable(),
  task: z.string().nullable(),
  partition: z.string(),
  first: count,
  last: count,
  /** The hash that the seal signs. */
  head: z.string().regex(/^[0-9a-f]{64}$/),
  /** Times of its first and last record. */
  from: count,
  to: count,
  final: z.boolean(),
  /** Objects with its bodies. */
  bodies: count,
  /** The journal of its own hour had ended: it stands in that of the hour when it came. */
  late: z.literal(true).optional(),
});

export type StoredEntry = z.output<typeof storedShape>;

/** Whose segment it is. */
export type IndexedLog = Pick<StoredEntry, "log" | "human" | "task" | "partition">;

/** Where the segments of such a log stand; undefined: there is no such log. */
export function partitionOf({ log, human, task }: IndexedLog): string | undefined {
  if (human !== null && task !== null) return `human=${human}/task=${task}/instance=${log}`;
  const [, door, day] = /^([a-z-]+)\.(\d{4}-\d{2}-\d{2})$/.exec(log) ?? [];
  return human === null && task === null && door !== undefined ? journalPartition(door, day!) : undefined;
}

export interface IndexQuery {
  readonly fromMs: number;
  readonly toMs: number;
  readonly human?: string | undefined;
  readonly task?: string | undefined;
  readonly instance?: string | undefined;
}

/** Records of the segment may fall into the span, and it is of who is asked for. */
export const isAskedFor = (
  { log, human, task, from, to }: StoredEntry,
  { fromMs, toMs, ...ids }: IndexQuery,
): boolean =>
  from <= toMs &&
  to >= fromMs &&
  (ids.human === undefined || ids.human === human) &&
  (ids.task === undefined || ids.task === task) &&
  (ids.instance === undefined || ids.instance === log);

/**
 * The hours whose journals can name a segment with records of the span: a segment is named in the hour of its last
 * record, and it takes records for ten minutes at most, and until an alarm comes.
 */
export function* indexHours(fromMs: number, toMs: number): Generator<number> {
  for (let hourMs = hourOf(fromMs); hourMs <= hourOf(toMs) + HOUR_MS; hourMs += HOUR_MS) yield hourMs;
}
