import { KEY_ID } from "../transcript/layout.ts";
import type { ErasureRequest, HeldSubject } from "./contract.ts";

/** Pure: what a hold keeps, and what an erasure means. */

/** Nothing of this human in this task may go. */
export function holds(subject: HeldSubject, human: string, task: string): boolean {
  switch (subject.kind) {
    case "everything":
      return true;
    case "human":
      return subject.id === human;
    case "task":
      return subject.id === task;
  }
}

/** Nothing that this erasure means may go, so that there is nothing to begin with. A hold of one task among others is no such. */
export function forbids(subject: HeldSubject, { human, task }: Pick<ErasureRequest, "human" | "task">): boolean {
  if (task !== null) return holds(subject, human, task);
  return subject.kind === "everything" || (subject.kind === "human" && subject.id === human);
}

export const bodiesPrefix = ({ human, task }: Pick<ErasureRequest, "human" | "task">): string =>
  `bodies/human=${human}/${task === null ? "" : `task=${task}/`}`;

/** An object with bodies, by its key. */
export interface BodiesObject {
  readonly task: string;
  readonly instance: string;
  /** Lines of bodies from this record's on, or raw bytes of this record's body. Null: nothing that the gate writes. */
  readonly seq: number | null;
  readonly isRaw: boolean;
}

const KEY = /^bodies\/human=[^/]+\/task=([^/]+)\/instance=([^/]+)\/([^/]+)$/;
const VOLUME = /^(\d{10})(?:\.\d{3,6})?\.jsonl\.gz$/;
const RAW = /^(\d{10})-(?:request|answer)\.\d{4,}$/;

/** Undefined: it lies in no instance's place. */
export function parseBodiesKey(key: string): BodiesObject | undefined {
  const [, task, instance, name = ""] = KEY.exec(key) ?? [];
  if (task === undefined || instance === undefined || !KEY_ID.test(task) || !KEY_ID.test(instance)) return undefined;
  const volume = VOLUME.exec(name)?.[1];
  const raw = RAW.exec(name)?.[1];
  const seq = volume ?? raw;
  return { task, instance, seq: seq === undefined ? null : Number(seq), isRaw: raw !== undefined };
}

/** How far an erasure reaches in one transcript. */
export interface Extent {
  /** The first record after the time that it goes up to. */
  readonly fromSeq: number;
  /** Calls that had no answer by then: their bodies stay, since what is recorded later must still fit. */
  readonly running: readonly number[];
  /** False: some of the records before `fromSeq` are gone from the instance, and may be later than that time, too. */
  readonly isExact: boolean;
}

/** Of a place where no instance writes. */
export const NOBODY: Extent = { fromSeq: Number.MAX_SAFE_INTEGER, running: [], isExact: true };
/** Of an instance that could not be asked. */
export const UNHEARD: Extent = { ...NOBODY, isExact: false };

/** A record that is still in its log. */
export interface LoggedTime {
  readonly seq: number;
  readonly at: number;
  /** Of an answer: its call. */
  readonly answers: number | null;
}

/**
 * How far it reaches in a log.
 * @param rows that are there, oldest first
 * @param dropped up to where rows are gone, and when that was sealed: all that a seal covers was written before it
 */
export function extentOf(
  rows: readonly LoggedTime[],
  dropped: { readonly lastSeq: number; readonly sealedAtMs: number } | null,
  {
    beforeMs,
    open,
    nextSeq,
  }: { readonly beforeMs: number; readonly open: readonly number[]; readonly nextSeq: number },
): Extent {
  const later = rows.filter(({ at }) => at > beforeMs);
  const fromSeq = later.reduce((first, { seq }) => Math.min(first, seq), nextSeq);
  const answeredLater = later.flatMap(({ answers }) => (answers === null ? [] : [answers]));
  const running = [...new Set([...open, ...answeredLater])].filter((seq) => seq < fromSeq).sort((a, b) => a - b);
  const [first] = rows;
  const isSealedBefore = dropped !== null && dropped.sealedAtMs <= beforeMs;
  const isExact =
    first === undefined
      ? dropped === null || isSealedBefore
      : first.seq === 0 || first.at <= beforeMs || (isSealedBefore && dropped.lastSeq === first.seq - 1);
  return { fromSeq, running, isExact };
}

/** Clocks of the bucket and of objects differ by less than this: what is older was surely recorded before. */
const CLOCKS_DIFFER_MS = 60_000;
/** Of what is older than this, no part belongs to a call that was still running. */
const CALL_OVER_MS = 3_600_000;

/** `take`: all of it goes. `keep`: none of it is meant. `look`: its lines decide. `later`: nobody can tell, so it is left. */
export type Verdict = "take" | "keep" | "look" | "later";

export function judge(object: BodiesObject, extent: Extent, uploadedMs: number, beforeMs: number): Verdict {
  const { fromSeq, running, isExact } = extent;
  if (object.seq === null) return uploadedMs <= beforeMs ? "take" : "later";
  if (object.seq >= fromSeq) return "keep";
  if (!isExact && uploadedMs > beforeMs - CALL_OVER_MS) return "later";
  if (object.isRaw) return running.includes(object.seq) ? "keep" : "take";
  const isSurelyBefore = fromSeq === NOBODY.fromSeq || uploadedMs <= beforeMs - CLOCKS_DIFFER_MS;
  return isSurelyBefore && running.length === 0 ? "take" : "look";
}

/** Of a line in a volume of bodies. */
export const isMeant = (seq: number, { fromSeq, running }: Extent): boolean => seq < fromSeq && !running.includes(seq);
