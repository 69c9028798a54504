import type { KeyRing } from "../grant/keys.ts";
import type { Json } from "../scope/call.ts";
import type { FlipProgress, FlipState, FlipStatus, Opening } from "./contract.ts";
import type { Switch } from "./switch.ts";

export const RECEIPT_TYPE = "portcullis-receipt+jwt";
/** Beyond this many instances a receipt counts them and names none: of those that were reached, and of those that were not. */
export const RECEIPT_INSTANCES_MAX = 10_000;

/** What a switch did, and when: all times in milliseconds since 1970 on the switchboard's clock, none earlier than it was. */
export interface Receipt {
  readonly iss: string;
  readonly switch: Switch;
  readonly status: FlipStatus;
  readonly opened: Opening | null;
  /** Instances that may have acted when the switch came, and have acknowledged it. */
  readonly reached: number;
  /** In reach, and without a confirmation at that time: they could do nothing, and learn of it before their next call. */
  readonly idle: number;
  /** Running calls that were cut; each Worker has confirmed. */
  readonly cut: number;
  /** Running calls whose Worker has not confirmed yet. */
  readonly unconfirmed: number;
  readonly acceptedAtMs: number;
  readonly firstAcknowledgedAtMs: number | null;
  readonly p50AcknowledgedAtMs: number | null;
  readonly p99AcknowledgedAtMs: number | null;
  readonly lastAcknowledgedAtMs: number | null;
  /** Of all cut calls, in either direction. */
  readonly lastByteAtMs: number | null;
  /** Null: more than a receipt names. */
  readonly instances:
    | readonly {
        readonly instance: string;
        readonly acknowledgedAtMs: number;
        readonly cut: number;
        readonly unconfirmed: number;
      }[]
    | null;
  /** Instances that may have acted when the switch came, and have not acknowledged it. */
  readonly missing: number;
  /** When the last of them has surely no confirmation any more; null where none is missing. */
  readonly lastStoppedByMs: number | null;
  /** Never counted as stopped before that time: then the confirmation that they hold has run out. Null: more than a receipt names. */
  readonly unreached: readonly { readonly instance: string; readonly stoppedByMs: number }[] | null;
  /** Roster shards that have not answered: whoever is enlisted there is not counted in anything above. Absent where all have. */
  readonly unheardShards?: number;
}

/** Pure. */
export function receiptOf(state: FlipState, issuer: string): Receipt {
  const { switch: sw, status, opened, idle, reached, unheardShards } = state;
  const answered = reached.flatMap(({ instance, answer }) => (answer === null ? [] : [{ instance, ...answer }]));
  const unreached = reached.flatMap(({ instance, answer, stoppedByMs }) =>
    answer === null ? [{ instance, stoppedByMs }] : [],
  );
  const times = answered.map(({ acknowledgedAtMs }) => acknowledgedAtMs).sort((a, b) => a - b);
  const lastBytes = answered.flatMap(({ lastByteAtMs }) => lastByteAtMs ?? []);
  const sum = (pick: (one: (typeof answered)[0]) => number): number =>
    answered.reduce((total, one) => total + pick(one), 0);
  return {
    iss: issuer,
    switch: sw,
    status,
    opened,
    reached: answered.length,
    idle,
    cut: sum(({ cut }) => cut),
    unconfirmed: sum(({ unconfirmed }) => unconfirmed),
    acceptedAtMs: sw.atMs,
    firstAcknowledgedAtMs: times[0] ?? null,
    p50AcknowledgedAtMs: percentile(times, 0.5),
    p99AcknowledgedAtMs: percentile(times, 0.99),
    lastAcknowledgedAtMs: times.at(-1) ?? null,
    lastByteAtMs: latest(lastBytes),
    instances:
      answered.length > RECEIPT_INSTANCES_MAX
        ? null
        : answered.map(({ instance, acknowledgedAtMs, cut, unconfirmed }) => ({
            instance,
            acknowledgedAtMs,
            cut,
            unconfirmed,
          })),
    missing: unreached.length,
    lastStoppedByMs: latest(unreached.map(({ stoppedByMs }) => stoppedByMs)),
    unreached: unreached.length > RECEIPT_INSTANCES_MAX ? null : unreached,
    ...(unheardShards > 0 ? { unheardShards } : {}),
  };
}

/** Pure. The same figures as in the receipt. */
export function progressOf({ switch: { id }, status, reached, idle }: FlipState): FlipProgress {
  const answers = reached.flatMap(({ answer }) => answer ?? []);
  const sum = (pick: (one: (typeof answers)[0]) => number): number =>
    answers.reduce((total, one) => total + pick(one), 0);
  return {
    switch: id,
    status,
    reached: answers.length,
    idle,
    cut: sum(({ cut }) => cut),
    unconfirmed: sum(({ unconfirmed }) => unconfirmed),
    unreached: reached.length - answers.length,
  };
}

/** Of more than one call can have arguments. */
const latest = (times: readonly number[]): number | null =>
  times.reduce<number | null>((last, one) => Math.max(last ?? one, one), null);

/** The nearest rank: a value that was measured, never one between two. */
const percentile = (sorted: readonly number[], share: number): number | null =>
  sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? null;

/** Signed with the key that seals transcripts: who can verify those can verify this. */
export const signReceipt = (ring: KeyRing, receipt: Receipt): string =>
  ring.signCompact(RECEIPT_TYPE, receipt as unknown as { readonly [member: string]: Json });
