import {
  bodiesKey,
  erasureKey,
  instancePartition,
  journalPartition,
  KEY_ID,
  type RawPart,
  rawBodyKey,
  segmentKey,
} from "./layout.ts";
import { INDEX_DOOR, parseIndexPath } from "./segment-index.ts";

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

interface InPartition {
  readonly key: string;
  readonly partition: Partition;
}

export interface SegmentName extends InPartition {
  readonly kind: "segment";
  readonly firstSeq: number;
}

/** Lines of bodies of one segment. */
export interface VolumeName extends InPartition {
  readonly kind: "volume";
  readonly firstSeq: number;
  readonly volume: number;
}

/** Raw bytes of one body: `seq` is that of its call. */
export interface RawName extends InPartition {
  readonly kind: "raw";
  readonly seq: number;
  readonly part: RawPart;
  readonly no: number;
}

export type ObjectName = SegmentName | VolumeName | RawName;

const LINES_KEY = /^(transcripts|bodies)\/(.+)\/(\d{10})(?:\.(\d{3,6}))?\.jsonl\.gz$/;
const RAW_KEY = /^bodies\/(.+)\/(\d{10})-(request|answer)\.(\d{4,6})$/;

/** The inverse of `segmentKey`, `bodiesKey` and `rawBodyKey`. Undefined for a key that they can't have made. */
export function parseObjectKey(key: string): ObjectName | undefined {
  const name = parseLinesKey(key) ?? parseRawKey(key);
  return name !== undefined && spell(name) === key ? name : undefined;
}

function parseLinesKey(key: string): SegmentName | VolumeName | undefined {
  const [, prefix, path = "", first, number] = LINES_KEY.exec(key) ?? [];
  const partition = parsePartition(path);
  if (partition === undefined) return undefined;
  const firstSeq = Number(first);
  if (prefix === "transcripts") return { kind: "segment", key, partition, firstSeq };
  return { kind: "volume", key, partition, firstSeq, volume: Number(number ?? 0) };
}

function parseRawKey(key: string): RawName | undefined {
  const [, path = "", seq, part, no] = RAW_KEY.exec(key) ?? [];
  const partition = parsePartition(path);
  if (partition?.kind !== "instance") return undefined;
  return { kind: "raw", key, partition, seq: Number(seq), part: part as RawPart, no: Number(no) };
}

function spell(name: ObjectName): string {
  const { path } = name.partition;
  switch (name.kind) {
    case "segment":
      return segmentKey(path, name.firstSeq);
    case "volume":
      return bodiesKey(path, name.firstSeq, name.volume);
    case "raw":
      return rawBodyKey(path, name.seq, name.part, name.no);
  }
}

/** The inverse of `erasureKey`. */
export function parseErasureKey(key: string): { readonly human: string; readonly id: string } | undefined {
  const [, human = "", id = ""] = /^erasures\/human=([^/]+)\/([^/]+)\.json$/.exec(key) ?? [];
  return [human, id].every((one) => KEY_ID.test(one)) && erasureKey(human, id) === key ? { human, id } : undefined;
}

function parsePartition(path: string): Partition | undefined {
  const [, human, task, instance] = /^human=([^/]+)\/task=([^/]+)\/instance=([^/]+)$/.exec(path) ?? [];
  if (human !== undefined && task !== undefined && instance !== undefined) {
    const ids = { instance, human, task };
    if (!Object.values(ids).every((id) => KEY_ID.test(id))) return undefined;
    return { path: instancePartition(ids), kind: "instance", log: instance, ids, deadlineMs: null };
  }
  const index = parseIndexPath(path);
  if (index !== undefined) {
    const { name, endsAtMs } = index;
    return { path, kind: "journal", log: name, ids: { journal: name }, deadlineMs: endsAtMs };
  }
  const [, door, day] = /^journal=([^/.]+)\/day=(\d{4}-\d{2}-\d{2})$/.exec(path) ?? [];
  if (door === undefined || day === undefined || !KEY_ID.test(door) || door === INDEX_DOOR) return undefined;
  const startMs = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(startMs)) return undefined;
  const log = `${door}.${day}`;
  const deadlineMs = startMs + DAY_MS + JOURNAL_OPEN_AFTER_DAY_MS;
  return { path: journalPartition(door, day), kind: "journal", log, ids: { journal: log }, deadlineMs };
}
