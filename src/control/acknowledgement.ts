/**
 * Who has stopped, and when. Every object has a clock of its own, so times travel as ages ("so long ago", measured by who
 * saw it), and each who hears one puts it on its own clock as of the moment it was heard. The way there is then counted
 * in: what the switchboard states is never earlier than it was.
 */

/** What an instance did with a switch that was pushed to it. */
export interface CloseAnswer {
  /** Calls whose Worker has confirmed that it is cut. */
  readonly cut: number;
  /** Calls whose Worker has not. It cuts by itself when it no longer hears its lease. */
  readonly unconfirmed: number;
  /** How long ago the last of them confirmed; where none ran, the switch was taken. */
  readonly acknowledgedAgeMs: number;
  /** How long ago a byte of a cut call last passed, in either direction; null where none did. */
  readonly lastByteAgeMs: number | null;
}

/** One instance that may have acted when the switch came, as its roster shard sees it. */
export interface Pushed {
  readonly instance: string;
  readonly answer: CloseAnswer | null;
  /** In how long the confirmation that it holds has run out, and with it any right to admit a call. */
  readonly stoppedInMs: number;
}

/** The same on the switchboard's clock. */
export interface Reached {
  readonly instance: string;
  readonly answer: {
    readonly cut: number;
    readonly unconfirmed: number;
    readonly acknowledgedAtMs: number;
    readonly lastByteAtMs: number | null;
  } | null;
  readonly stoppedByMs: number;
}

/** A Worker that no longer hears its lease cuts by itself within 20 s; half as much again for clocks and load. */
export const SILENT_WORKER_CUT_MS = 30_000;

/**
 * Whether somebody may still do something: while its confirmation runs nothing is asked, and for a time after it a call that was admitted
 * before may run, since its Worker learns of that with its next beat.
 */
export const mayAct = (confirmedUntilMs: number, nowMs: number): boolean =>
  confirmedUntilMs + SILENT_WORKER_CUT_MS > nowMs;

/**
 * Ages as times of the clock that heard of them now. A clock that stepped between two readings makes an age wrong: nothing
 * was acknowledged before it was accepted, and nothing is ahead of now.
 */
export const onClock = (nowMs: number, acceptedAtMs: number, { instance, answer, stoppedInMs }: Pushed): Reached => ({
  instance,
  answer:
    answer === null
      ? null
      : {
          cut: answer.cut,
          unconfirmed: answer.unconfirmed,
          acknowledgedAtMs: Math.max(acceptedAtMs, nowMs - Math.max(0, answer.acknowledgedAgeMs)),
          lastByteAtMs: answer.lastByteAgeMs === null ? null : nowMs - Math.max(0, answer.lastByteAgeMs),
        },
  stoppedByMs: nowMs + stoppedInMs,
});

/** An answer that was heard some time ago, as of now. */
export const aged = (answer: CloseAnswer, sinceMs: number): CloseAnswer => ({
  ...answer,
  acknowledgedAgeMs: Math.max(0, answer.acknowledgedAgeMs + sinceMs),
  lastByteAgeMs: answer.lastByteAgeMs === null ? null : Math.max(0, answer.lastByteAgeMs + sinceMs),
});

/**
 * Whether an instance can surely do nothing any more. One that did not answer admits nothing after `stoppedByMs`, and what it runs then
 * is cut as by a Worker that hears nothing.
 */
export const isSilent = ({ answer, stoppedByMs }: Reached, nowMs: number): boolean => {
  if (answer === null) return !mayAct(stoppedByMs, nowMs);
  return answer.unconfirmed === 0 || answer.acknowledgedAtMs + SILENT_WORKER_CUT_MS <= nowMs;
};

/**
 * What is known after another push. The first answer without an unconfirmed call stays; before it a later one knows more. Who is heard
 * of no more, or answers no more, has still said what it said.
 */
export function mergeReached(before: readonly Reached[], now: readonly Reached[]): readonly Reached[] {
  const known = new Map(before.map((one) => [one.instance, one]));
  for (const one of now) {
    const first = known.get(one.instance);
    if (first === undefined || first.answer === null) known.set(one.instance, laterStop(first, one));
    else if (one.answer !== null && first.answer.unconfirmed > 0)
      known.set(one.instance, {
        ...one,
        answer: {
          ...one.answer,
          cut: Math.max(one.answer.cut, first.answer.cut),
          lastByteAtMs: later(first.answer.lastByteAtMs, one.answer.lastByteAtMs),
        },
      });
  }
  return [...known.values()];
}

/** An instance that was reset has forgotten what its Workers had said. */
const later = (before: number | null, now: number | null): number | null =>
  before === null || now === null ? (before ?? now) : Math.max(before, now);

/** A confirmation that was seen to run is never believed shorter. */
const laterStop = (first: Reached | undefined, one: Reached): Reached => ({
  ...one,
  stoppedByMs: Math.max(first?.stoppedByMs ?? 0, one.stoppedByMs),
});
