import { segmentKey } from "./layout.ts";
import type { Seal } from "./seal.ts";
import {
  INDEX_DOOR,
  type IndexQuery,
  isAskedFor,
  partitionOf,
  type StoredEntry,
  storedShape,
} from "./segment-index.ts";
import type { Finding } from "./verify-findings.ts";
import { type Partition, parseObjectKey } from "./verify-layout.ts";
import type { ReadRecord } from "./verify-segment.ts";

/** What was copied: all of who is named, of the span where one is. Nobody and none: all. */
export interface CopyScope extends Pick<IndexQuery, "human" | "task" | "instance"> {
  readonly fromMs?: number | undefined;
  readonly toMs?: number | undefined;
  /** Entries of the index that are younger may be of segments that came after the copy. Null: the index was copied first. */
  readonly untilMs: number | null;
}

/** A segment is named when it is stored, and the journal that names it leaves five minutes later, or when R2 takes it again. */
export const INDEX_GRACE_MS = 3_600_000;

interface Entry {
  readonly place: string;
  readonly atMs: number;
  readonly says: StoredEntry;
}

/** Of what belongs to no transcript that is here. */
export interface IndexFindings {
  /** By partition. */
  readonly of: ReadonlyMap<string, readonly Finding[]>;
  readonly stray: readonly Finding[];
  /** Keys of segments that are too young for a finding, and that nothing names yet. */
  readonly unnamed: readonly string[];
}

/** What names all else is named by nothing. */
const isOfIndex = ({ kind, path }: Partition): boolean =>
  kind === "journal" && path.startsWith(`journal=${INDEX_DOOR}/`);

const isOfEverything = ({ human, task, instance, fromMs, toMs }: CopyScope): boolean =>
  [human, task, instance, fromMs, toMs].every((bound) => bound === undefined);

/**
 * Holds the segments that are here to the index of segments, which names them: one that is gone with its whole transcript
 * shows in nothing else. What must be here is what the copy was of: without a scope nothing is missed, only compared.
 */
export class IndexReader {
  readonly #scopes: readonly CopyScope[];
  /** By partition, then by `first`. */
  readonly #entries = new Map<string, Map<number, Entry>>();
  /** By key. */
  readonly #seals = new Map<string, Pick<Seal, "last" | "head" | "final" | "at">>();
  /** Keys that are here, sound or not, as an entry would name them. */
  readonly #here = new Map<string, { readonly partition: string; readonly first: number }>();
  /** When the newest seal was made that is here. */
  #latestMs = 0;
  readonly #stray: Finding[] = [];

  constructor(scopes: readonly CopyScope[]) {
    this.#scopes = scopes;
  }

  /** @param seal null: it does not verify, which is a finding of its own. */
  readSegment(partition: Partition, key: string, seal: Seal | null): void {
    this.#latestMs = Math.max(this.#latestMs, seal?.at ?? 0);
    if (isOfIndex(partition)) return;
    const name = parseObjectKey(key);
    if (name?.kind === "segment") this.#here.set(key, { partition: partition.path, first: name.firstSeq });
    if (seal !== null) this.#seals.set(key, { last: seal.last, head: seal.head, final: seal.final, at: seal.at });
  }

  readRecord(partition: Partition, { type, place, envelope }: ReadRecord): void {
    if (partition.kind !== "journal") return;
    const isIndex = isOfIndex(partition);
    if (type !== "stored") {
      if (isIndex && type !== "ended") this.#find(place, `a record of type ${type} in the index of segments`);
      return;
    }
    const says = storedShape.safeParse(envelope);
    if (!isIndex) this.#find(place, "names a segment, and is not in the index of segments");
    else if (!says.success) this.#find(place, `not an entry of the index: ${says.error.issues[0]?.path.join(".")}`);
    else if (says.data.partition !== partitionOf(says.data)) this.#find(place, "its partition is not that of its ids");
    else this.#take({ place, atMs: envelope["at"] as number, says: says.data });
  }

  #take(entry: Entry): void {
    const { partition, first } = entry.says;
    const named = this.#entries.get(partition) ?? new Map<number, Entry>();
    this.#entries.set(partition, named);
    const before = named.get(first);
    // An entry that was sent twice says the same.
    if (before === undefined) named.set(first, entry);
    else if (before.says.head !== entry.says.head || before.says.last !== entry.says.last)
      this.#find(entry.place, `names ${segmentKey(partition, first)} otherwise than ${before.place}`);
  }

  /** After the last object. */
  finish(): IndexFindings {
    const of = new Map<string, Finding[]>();
    for (const [partition, entries] of this.#entries) {
      const found: Finding[] = [];
      const missing: Finding[] = [];
      const untilMs = this.#mustBeHereUntil(entries);
      let isHere = false;
      for (const [first, entry] of [...entries].sort(([a], [b]) => a - b)) {
        const key = segmentKey(partition, first);
        if (this.#here.has(key)) {
          isHere = true;
          const problem = this.#contradiction(key, entry);
          if (problem !== undefined) found.push({ place: key, problem });
        } else if (entry.atMs <= untilMs)
          missing.push({ place: key, problem: `missing: the index names it (${entry.place})` });
      }
      if (isHere) of.set(partition, [...found, ...missing]);
      else if (missing.length > 0) {
        const [first] = missing;
        const more = missing.length === 1 ? "" : ` and ${missing.length - 1} more`;
        const what = partition.startsWith("journal=") ? "journal" : "transcript";
        this.#find(first!.place, `a whole ${what} is ${first!.problem}${more}`);
      }
    }
    return { of, stray: this.#stray, unnamed: this.#findUnnamed(of) };
  }

  /**
   * A segment that no entry names was not stored by the gate, or what names it is gone. Only of a copy of everything that can
   * be said, and of segments that were sealed so long before the copy that the index must have them. Gives the younger ones.
   */
  #findUnnamed(of: Map<string, Finding[]>): readonly string[] {
    if (!this.#scopes.some(isOfEverything)) return [];
    const young: string[] = [];
    for (const [key, { partition, first }] of this.#here) {
      const atMs = this.#seals.get(key)?.at;
      // Where the seal does not verify, that is the finding.
      if (atMs === undefined || this.#entries.get(partition)?.has(first)) continue;
      if (atMs + INDEX_GRACE_MS > this.#latestMs) young.push(key);
      else of.set(partition, [...(of.get(partition) ?? []), { place: key, problem: "no index names it" }]);
    }
    return young;
  }

  #contradiction(key: string, { place, says }: Entry): string | undefined {
    const seal = this.#seals.get(key);
    if (seal === undefined) return undefined;
    if (seal.head !== says.head) return `another segment than the index names: its head differs (${place})`;
    if (seal.last !== says.last || seal.final !== says.final)
      return `another segment than the index names: its end differs (${place})`;
    return undefined;
  }

  /** A transcript is copied whole where any segment of it was asked for. */
  #mustBeHereUntil(entries: ReadonlyMap<number, Entry>): number {
    let untilMs = Number.NEGATIVE_INFINITY;
    for (const { untilMs: until, fromMs = 0, toMs = Number.POSITIVE_INFINITY, ...ids } of this.#scopes)
      if ([...entries.values()].some(({ says }) => isAskedFor(says, { ...ids, fromMs, toMs })))
        untilMs = Math.max(untilMs, until ?? Number.POSITIVE_INFINITY);
    return untilMs;
  }

  #find(place: string, problem: string): void {
    this.#stray.push({ place, problem });
  }
}
