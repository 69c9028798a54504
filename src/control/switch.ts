import type { Json } from "../scope/call.ts";

/** How far a switch reaches. More reaches come with their own column of the roster's attribute vector. */
export const REACHES = ["instance"] as const;
export type Reach = (typeof REACHES)[number];

/** A closed switch, as it is kept, pushed and put on record. */
export interface Switch {
  readonly id: string;
  readonly reach: Reach;
  readonly target: string;
  readonly act: "kill";
  readonly reason: string;
  /** The admin: a human's id. */
  readonly by: string;
  readonly atMs: number;
}

/** What the roster knows of an instance: everything a reach can select by. */
export interface Attributes {
  readonly instance: string;
  readonly human: string;
  readonly task: string;
  readonly agent: string;
  readonly agentVersion: string;
  readonly client: string;
  readonly upstreams: readonly string[];
  readonly deadlineMs: number;
}

/** What an instance did with a switch that was pushed to it. */
export interface CloseAnswer {
  /** Calls that were running; each Worker has confirmed its cut, but for the `unconfirmed`. */
  readonly cut: number;
  /** Calls whose Worker did not confirm in time. It cuts by itself when it no longer hears its lease. */
  readonly unconfirmed: number;
  readonly acknowledgedAtMs: number;
}

/** One instance in reach of a switch, after the push. */
export interface Reached {
  readonly instance: string;
  readonly answer: CloseAnswer | null;
  /** Without an answer: when the confirmation it holds runs out, and with it any right to admit a call. */
  readonly stoppedByMs: number;
}

/**
 * `accepted`: it stands, and the roster has not answered yet. `pending`: somebody in reach may still act. `done`: nobody can any more.
 * Up to `done` the switchboard pushes again.
 */
export type FlipStatus = "accepted" | "pending" | "done";

export interface FlipAnswer {
  readonly switch: Switch;
  readonly status: Exclude<FlipStatus, "accepted">;
  readonly reached: readonly Reached[];
  readonly acknowledgedAtMs: number;
}

/** A Worker that no longer hears its lease cuts by itself within 20 s; half as much again for clocks and load. */
export const SILENT_WORKER_CUT_MS = 30_000;

/**
 * Whether an instance can surely do nothing any more. One that did not answer admits nothing after `stoppedByMs`, and what it runs then
 * is cut as by a Worker that hears nothing.
 */
export const isSilent = ({ answer, stoppedByMs }: Reached, nowMs: number): boolean => {
  if (answer === null) return stoppedByMs + SILENT_WORKER_CUT_MS <= nowMs;
  return answer.unconfirmed === 0 || answer.acknowledgedAtMs + SILENT_WORKER_CUT_MS <= nowMs;
};

/**
 * What is known after another push. The first answer says how many calls were cut, and when; later ones only that more of their Workers
 * have confirmed. INVARIANT: nothing is admitted after the first answer, so `unconfirmed` never rises.
 */
export function mergeReached(before: readonly Reached[], now: readonly Reached[]): readonly Reached[] {
  const known = new Map(before.map((one) => [one.instance, one]));
  for (const one of now) {
    const first = known.get(one.instance)?.answer ?? null;
    if (first === null) known.set(one.instance, one);
    else if (one.answer !== null) {
      const unconfirmed = Math.min(first.unconfirmed, one.answer.unconfirmed);
      known.set(one.instance, { ...one, answer: { ...first, unconfirmed } });
    }
  }
  return [...known.values()];
}

export const isInReach = (sw: Switch, attributes: Pick<Attributes, "instance">): boolean => {
  switch (sw.reach) {
    case "instance":
      return attributes.instance === sw.target;
  }
};

export const switchFields = (sw: Switch): { readonly [key: string]: Json } => ({
  switch: sw.id,
  act: sw.act,
  reach: sw.reach,
  target: sw.target,
  reason: sw.reason,
  by: sw.by,
});
