import { gunzipSync } from "node:zlib";
import { type BodyLine, type BodyPart, readBodyBytes } from "./body-line.ts";
import { readErasureLine } from "./erasure.ts";
import { rawBodyKey, rawBodyName } from "./layout.ts";
import type { SealKeys } from "./verify-keys.ts";
import { parseErasureKey, parseObjectKey, type VolumeName } from "./verify-layout.ts";

/** Where bodies lie: the bucket, or a copy of it. */
export interface BodyStore {
  /** In the order of their keys. */
  list(prefix: string): AsyncIterable<{ readonly key: string; readonly bytes: number }>;
  /** As stored; null: there is none. Never asked for a raw object. */
  get(key: string): Promise<Uint8Array | null>;
}

/** A body as the records speak of it. */
export interface WantedBody {
  /** Of the record that it belongs to: of the call for both parts of a call. */
  readonly seq: number;
  readonly part: BodyPart;
  /** Null: not stated, so what there is is all there is. */
  readonly bytes: number | null;
  /** `seq` of the record after which nothing of it can have been written; null: it may still come. */
  readonly untilSeq: number | null;
}

/** A run of a body, or (`isRaw`) what stands for its raw objects. */
export interface PlacedRun {
  readonly index: number;
  readonly isRaw: boolean;
  readonly bytes: Uint8Array;
}

/** What the instance's object has of it: the end of its runs, and how many raw objects there are at least. */
export interface HeldBody {
  readonly runs: readonly PlacedRun[];
  readonly objects: number;
}

/** All of a body that is recorded so far: its runs, then the bytes of its raw objects. */
export interface LocatedBody {
  readonly runs: readonly Uint8Array[];
  readonly raw: readonly RawObject[];
}
export interface RawObject {
  readonly key: string;
  readonly no: number;
  /** Null: it is not in the store, and the instance's object has it. */
  readonly bytes: number | null;
}

/** More than a volume ever holds; a bound against a foreign object. */
const VOLUME_MAX_BYTES = 16_777_216;
const NOTHING_HELD: HeldBody = { runs: [], objects: 0 };

/** Where all of a body lies. Null: some of it is gone. */
export async function locateBody(
  store: BodyStore,
  partition: string,
  wanted: WantedBody,
  held: HeldBody = NOTHING_HELD,
): Promise<LocatedBody | null> {
  if (wanted.bytes === 0) return { runs: [], raw: [] };
  const runs = await findRuns(store, partition, wanted, held.runs);
  if (runs.some(({ index }, at) => index !== at)) return null;
  const isRaw = runs.at(-1)?.isRaw === true;
  const inline = runs.filter((run) => !run.isRaw).map(({ bytes }) => bytes);
  const raw =
    isRaw && wanted.part !== "claims" ? await findRaw(store, partition, wanted.seq, wanted.part, held.objects) : [];
  if (raw === null) return null;
  // Without an end of the body in the records, how much there should be is not known.
  if (wanted.bytes === null || raw.some(({ bytes }) => bytes === null)) return { runs: inline, raw };
  const bytes = sum(inline.map(({ length }) => length)) + sum(raw.map((object) => object.bytes ?? 0));
  // More than is stated: an object was reset while it came.
  return bytes >= wanted.bytes ? { runs: inline, raw } : null;
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** Those of the store, up to where those that are held begin. In order. */
async function findRuns(
  store: BodyStore,
  partition: string,
  wanted: WantedBody,
  held: readonly PlacedRun[],
): Promise<readonly PlacedRun[]> {
  const firstHeld = held[0]?.index ?? Number.POSITIVE_INFINITY;
  const found: PlacedRun[] = [];
  const all = () => [...found, ...held];
  if (firstHeld === 0) return all();
  // A volume's exact beginning of each line of this body, as it is written.
  const begins = `${JSON.stringify({ v: 1, seq: wanted.seq, part: wanted.part }).slice(0, -1)},`;
  for (const { key } of await volumesOf(store, partition, wanted)) {
    const object = await store.get(key);
    if (object === null) continue;
    const text = new TextDecoder().decode(gunzipSync(object, { maxOutputLength: VOLUME_MAX_BYTES }));
    for (const line of text.split("\n")) {
      if (!line.startsWith(begins)) continue;
      const run = JSON.parse(line) as BodyLine;
      if (run.index < firstHeld)
        found.push({ index: run.index, isRaw: run.raw !== undefined, bytes: readBodyBytes(run) });
    }
    const last = found.at(-1);
    const isAll = wanted.bytes !== null && sum(found.map(({ bytes }) => bytes.length)) >= wanted.bytes;
    if (last !== undefined && (last.isRaw || isAll || last.index === firstHeld - 1)) break;
  }
  return all();
}

/** The volumes that can hold some of it: from the one of its record's segment on. */
async function volumesOf(store: BodyStore, partition: string, { seq, untilSeq }: WantedBody): Promise<VolumeName[]> {
  const volumes: VolumeName[] = [];
  for await (const { key } of store.list(`bodies/${partition}/`)) {
    const name = parseObjectKey(key);
    if (name?.kind === "volume" && name.firstSeq <= (untilSeq ?? Number.POSITIVE_INFINITY)) volumes.push(name);
  }
  const from = volumes.findLast(({ firstSeq }) => firstSeq <= seq)?.firstSeq ?? seq;
  return volumes.filter(({ firstSeq }) => firstSeq >= from);
}

/** Null: one is gone. */
async function findRaw(
  store: BodyStore,
  partition: string,
  seq: number,
  part: "request" | "answer",
  objects: number,
): Promise<RawObject[] | null> {
  const stored = new Map<string, number>();
  for await (const { key, bytes } of store.list(`bodies/${partition}/${rawBodyName(seq, part)}.`))
    stored.set(key, bytes);
  const raw: RawObject[] = [];
  for (let no = 0; no < Math.max(objects, stored.size); no++) {
    const key = rawBodyKey(partition, seq, part, no);
    raw.push({ key, no, bytes: stored.get(key) ?? null });
  }
  // What is not in the store must be held, and what is held is known by its number.
  return raw.some(({ bytes, no }) => bytes === null && no >= objects) ? null : raw;
}

/**
 * The certificate by which a body of this record was erased; null: none covers it. One that does not verify covers
 * nothing.
 */
export async function findErasure(
  store: BodyStore,
  of: { readonly human: string; readonly task: string; readonly atMs: number },
  { keys, issuer }: { readonly keys: SealKeys; readonly issuer: string | null },
): Promise<string | null> {
  for await (const { key } of store.list(`erasures/human=${of.human}/`)) {
    const object = await store.get(key);
    const name = parseErasureKey(key);
    if (object === null || name === undefined) continue;
    const line = new TextDecoder().decode(object).replace(/\n$/, "");
    const read = readErasureLine(line, keys);
    if (!read.ok) continue;
    const { id, human, task, before, iss } = read.value;
    if (id !== name.id || human !== of.human || (issuer !== null && iss !== issuer)) continue;
    if ((task === undefined || task === of.task) && of.atMs <= before) return id;
  }
  return null;
}
