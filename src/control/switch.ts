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

export interface FlipAnswer {
  readonly switch: Switch;
  readonly reached: readonly Reached[];
  readonly acknowledgedAtMs: number;
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
