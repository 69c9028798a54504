import { bodiesKey, instancePartition, journalPartition, KEY_ID, segmentKey } from "./layout.ts";

const DAY_MS = 86_400_000;
/** How long after its day a journal still takes entries, before it writes its end. */
const JOURNAL_OPEN_AFTER_DAY_MS = 300_000;

/** What the place of an object says about its content: every record in it must say the same. */
export interface Partition {
  readonly path: string;
  readonly kind: "instance" | "journal";
  /** The name that seals carry. */
  readonly log: string;
  /** Fields that every record carries, and their values. */
  readonly ids: Readonly<Record<string, string>>;
  /** When the end is due. Null: record 0 says it. */
  readonly deadlineMs: number | null;
}

export interface ObjectName {
  readonly key: string;
  readonly partition: Partition;
  readonly firstSeq: number;
  /** Null for a segment, else the number of the volume of bodies. */
  readonly volume: number | null;
}

const KEY = /^(transcripts|bodies)\/(.+)\/(\d{10})(?:\.(\d{3,6}))?\.jsonl\.gz$/;

/** The inverse of `segmentKey` and `bodiesKey`. Undefined for a key that they can't have made. */
export function parseObjectKey(key: string): ObjectName | undefined {
  const [, kind, path, first, number] = KEY.exec(key) ?? [];
  const partition = path === undefined ? undefined : parsePartition(path);
  if (partition === undefined) return undefined;
  const firstSeq = Number(first);
  const volume = kind === "bodies" ? Number(number ?? 0) : null;
  const spelled = volume === null ? segmentKey(partition.path, firstSeq) : bodiesKey(partition.path, firstSeq, volume);
  return spelled === key ? { key, partition, firstSeq, volume } : undefined;
}

function parsePartition(path: string): Partition | undefined {
  const [, human, task, instance] = /^human=([^/]+)\/task=([^/]+)\/instance=([^/]+)$/.exec(path) ?? [];
  if (human !== undefined && task !== undefined && instance !== undefined) {
    const ids = { instance, human, task };
    if (!Object.values(ids).every((id) => KEY_ID.test(id))) return undefined;
    return { path: instancePartition(ids), kind: "instance", log: instance, ids, deadlineMs: null };
  }
  const [, door, day] = /^journal=([^/.]+)\/day=(\d{4}-\d{2}-\d{2})$/.exec(path) ?? [];
  if (door === undefined || day === undefined || !KEY_ID.test(door)) return undefined;
  const startMs = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(startMs)) return undefined;
  const log = `${door}.${day}`;
  const deadlineMs = startMs + DAY_MS + JOURNAL_OPEN_AFTER_DAY_MS;
  return { path: journalPartition(door, day), kind: "journal", log, ids: { journal: log }, deadlineMs };
}
