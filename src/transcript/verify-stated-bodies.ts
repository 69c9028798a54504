import type { BodyPart } from "./body-line.ts";
import type { ReadRecord } from "./verify-segment.ts";

export interface BodyName {
  readonly seq: number;
  readonly part: BodyPart;
}

/** What the records say of one body, and between which segments (by their first `seq`) its runs can stand. */
export interface StatedBody extends BodyName {
  /** Null: no digest is stated, so its runs can't be told from others. */
  readonly digest: string | null;
  /** Null: not stated. */
  readonly bytes: number | null;
  /** More of it may be here than is stated: its object was reset while it came. */
  readonly mayBeMore: boolean;
  readonly place: string;
  /** `at` of the record that it belongs to: of a request its call's, of an answer its own. */
  readonly atMs: number;
  /** Before it nothing of the body can have been written. */
  readonly sinceMs: number;
  readonly fromSegment: number;
  readonly untilSegment: number;
}

/** As a record states it. */
export interface BodySaid {
  readonly digest: string | null;
  readonly bytes: number | null;
  readonly mayMiss?: number | undefined;
}

/** The bodies that the records of one transcript state. */
export class StatedBodies {
  readonly #bodies = new Map<string, StatedBody>();

  state(
    name: BodyName,
    { digest, bytes, mayMiss = 0 }: BodySaid,
    { place, at }: Pick<ReadRecord, "place" | "at">,
    fromSegment: number,
    untilSegment: number,
    sinceMs = at,
  ): void {
    const mayBeMore = bytes === null || mayMiss > 0;
    const stated = { ...name, digest, bytes, mayBeMore, place, atMs: at, sinceMs, fromSegment, untilSegment };
    this.#bodies.set(bodyId(name), stated);
  }

  find(name: BodyName): StatedBody | undefined {
    return this.#bodies.get(bodyId(name));
  }
  get all(): Iterable<StatedBody> {
    return this.#bodies.values();
  }
}

export const bodyId = ({ seq, part }: BodyName): string => `${seq} ${part}`;
