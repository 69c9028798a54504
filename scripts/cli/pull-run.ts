// In which order a scope is pulled, so that what is in the folder at the end can be held to the index of segments and to itself.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import {
  HOUR_MS,
  INDEX_PREFIX,
  indexDayPrefix,
  indexHourPrefix,
  indexHours,
  isAskedFor,
  partitionOf,
  type StoredEntry,
  storedShape,
} from "../../src/transcript/segment-index.ts";
import { listFolders, listObjects, type ObjectSource, type StoredObject } from "../local/object-source.ts";
import { PULLED_FILE, readPulled } from "../local/pulled-file.ts";
import { writeForOwner } from "../local/verify-folder.ts";
import type { Mirror } from "./mirror.ts";
import { findFolders, isAll, type PullScope } from "./pull-scope.ts";

export interface Pull {
  readonly source: ObjectSource;
  readonly mirror: Mirror;
  readonly folder: string;
  readonly scope: PullScope;
  readonly withBodies: boolean;
  /** What the index says of a span and has not put into the bucket yet. */
  readonly entries: (span: Span) => AsyncIterable<StoredEntry>;
}

type Span = PullScope & { readonly fromMs: number; readonly toMs: number };

const DAY_MS = 86_400_000;
const OBJECT_MAX_BYTES = 67_108_864;

/** Runs again from the start after any failure: what is there is not fetched again. */
export async function runPull(pull: Pull): Promise<void> {
  const { folder, scope } = pull;
  const atMs = Date.now();
  const before = await readPulled(folder);
  const others = before.scopes.filter(({ atMs: _, ...other }) => !isSame(other, scope));
  const write = (scopes: typeof others, isCurrent: boolean) =>
    writeForOwner(join(folder, PULLED_FILE), `${JSON.stringify({ version: 1, scopes, isCurrent }, null, 2)}\n`);
  // Dying from here on, the folder promises nothing of this scope.
  await write(others, false);
  // The index first: all that the copy of it names is in the bucket when the rest is listed.
  for (const path of await pullIndex(pull)) await pullFolder(pull, path);
  await write([...others, { ...scope, atMs }], true);
}

const isSame = (a: PullScope, b: PullScope): boolean =>
  (["human", "task", "instance", "fromMs", "toMs"] as const).every((member) => a[member] === b[member]);

/** The index of the span, and what it leads to: folders behind `transcripts/` and `bodies/`. */
async function pullIndex(pull: Pull): Promise<string[]> {
  const { source, mirror, scope } = pull;
  const { fromMs, toMs } = scope;
  if (fromMs !== undefined && toMs !== undefined) return pullSpan(pull, { ...scope, fromMs, toMs });
  const folders = await findFolders(source, scope);
  if (isAll(scope)) await mirror.take(listObjects(source, INDEX_PREFIX));
  else {
    const span = await uploadedIn(source, folders);
    if (span !== null) await pullHours(pull, span.fromMs - HOUR_MS, span.toMs);
  }
  return folders;
}

/** Whole transcripts of who has records in the span: a part of one proves little. Of everybody also the journals of its days. */
async function pullSpan(pull: Pull, span: Span): Promise<string[]> {
  const { source, mirror, folder } = pull;
  await pullHours(pull, span.fromMs, span.toMs);
  const partitions = new Set<string>();
  const take = (entry: StoredEntry): void => {
    const partition = partitionOf(entry);
    if (partition !== undefined && isAskedFor(entry, span)) partitions.add(`${partition}/`);
  };
  for (const key of mirror.taken)
    if (key.startsWith(INDEX_PREFIX)) for (const entry of await entriesIn(join(folder, key))) take(entry);
  for await (const entry of pull.entries(span)) take(entry);
  const isOfEverybody = span.human === undefined && span.task === undefined && span.instance === undefined;
  // A journal of today has perhaps nothing in the index yet.
  for (const path of isOfEverybody ? await journalDays(source, span) : []) partitions.add(path);
  return [...partitions].sort();
}

async function pullHours({ source, mirror }: Pull, fromMs: number, toMs: number): Promise<void> {
  // None is written before its hour, but by a clock that is ahead.
  const lastMs = Math.min(toMs, Date.now());
  let isOfDay = false;
  for (const hourMs of indexHours(fromMs, lastMs)) {
    // A day that is wanted whole is listed at once.
    if (hourMs % DAY_MS === 0) {
      isOfDay = hourMs + DAY_MS <= lastMs;
      if (isOfDay) await mirror.take(listObjects(source, indexDayPrefix(hourMs)));
    }
    if (!isOfDay) await mirror.take(listObjects(source, indexHourPrefix(hourMs)));
  }
}

async function journalDays(source: ObjectSource, { fromMs, toMs }: Span): Promise<string[]> {
  const journals = (await listFolders(source, "transcripts/")).filter(
    (path) => path.startsWith("transcripts/journal=") && path !== INDEX_PREFIX,
  );
  const days: string[] = [];
  for (let dayMs = fromMs - (fromMs % DAY_MS); dayMs <= Math.min(toMs, Date.now()); dayMs += DAY_MS)
    days.push(`day=${new Date(dayMs).toISOString().slice(0, 10)}/`);
  return journals.flatMap((journal) => days.map((day) => `${journal.slice("transcripts/".length)}${day}`));
}

/** When the first and the last of them came into the bucket; null: there are none. */
async function uploadedIn(source: ObjectSource, folders: readonly string[]) {
  let [fromMs, toMs] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const path of folders)
    for await (const { uploadedAtMs } of listObjects(source, `transcripts/${path}`)) {
      fromMs = Math.min(fromMs, uploadedAtMs);
      toMs = Math.max(toMs, uploadedAtMs);
    }
  return fromMs <= toMs ? { fromMs, toMs } : null;
}

/** A damaged object leads to nothing: `verify` names it. */
async function entriesIn(file: string): Promise<StoredEntry[]> {
  try {
    const text = gunzipSync(await readFile(file), { maxOutputLength: OBJECT_MAX_BYTES }).toString();
    return text.split("\n").flatMap((line) => {
      const entry = line === "" ? undefined : storedShape.safeParse(JSON.parse(line));
      return entry?.success === true ? [entry.data] : [];
    });
  } catch {
    return [];
  }
}

/**
 * Bodies, then segments, then the bodies that came in between: they are written first, so of each segment that is here all
 * were in the bucket when it was listed.
 */
async function pullFolder({ source, mirror, withBodies }: Pull, path: string): Promise<void> {
  if (withBodies) await mirror.take(listObjects(source, `bodies/${path}`));
  await mirror.take(listObjects(source, `transcripts/${path}`));
  if (!withBodies) return;
  await mirror.take(onlyOfTaken(listObjects(source, `bodies/${path}`), mirror.taken));
  // What says of bodies that are gone by whom and why they were erased.
  const [, human = ""] = /^(human=[^/]+\/|$)/.exec(path) ?? [null, null];
  if (human !== null) await mirror.take(listObjects(source, `erasures/${human}`));
}

const BODY_KEY = /^bodies\/(.+\/)(\d{10})([-.].+)$/;

/** Volumes of segments that are here; and raw bodies, which lie by call and not by segment. */
async function* onlyOfTaken(
  objects: AsyncIterable<StoredObject>,
  taken: ReadonlySet<string>,
): AsyncGenerator<StoredObject> {
  for await (const object of objects) {
    const [, partition, first, rest] = BODY_KEY.exec(object.key) ?? [];
    if (rest?.startsWith("-") === true || taken.has(`transcripts/${partition}${first}.jsonl.gz`)) yield object;
  }
}
