import type { Json } from "../scope/call.ts";

/**
 * How far a switch reaches, and what it names: every member of its target must hold of an instance. A reach with an
 * `upstream` blocks and cuts that upstream's calls alone.
 */
export const REACHES = {
  instance: ["instance"],
  task: ["task"],
  human: ["human"],
  agent: ["agent"],
  "agent-version": ["agent", "agentVersion"],
  upstream: ["upstream"],
  /** All that works under one approval in advance. */
  mandate: ["mandate"],
  everything: [],
  "agent-upstream": ["agent", "upstream"],
  "human-upstream": ["human", "upstream"],
} as const satisfies Readonly<Record<string, readonly TargetMember[]>>;
export type Reach = keyof typeof REACHES;

export type TargetMember = "instance" | "task" | "human" | "agent" | "agentVersion" | "upstream" | "mandate";
export type Target = { readonly [member in TargetMember]?: string | undefined };

/** `kill` is final for the instances in reach, and refuses new ones until it is lifted; `pause` holds until it is resumed. */
export const ACTS = ["kill", "pause"] as const;
/**
 * `narrow` closes nothing by itself: a human has lost groups, and instances that were enrolled on an older word of the
 * identity provider work on with what is left. For them it is final.
 */
export const ALL_ACTS = [...ACTS, "narrow"] as const;
export type Act = (typeof ALL_ACTS)[number];

/** What made who acted act, where that was no decision of a person at this gate. */
export type SwitchCause =
  | {
      readonly kind: "set";
      readonly issuer: string;
      readonly jti: string;
      readonly event: string;
      readonly txn?: string;
    }
  | { readonly kind: "rule"; readonly rule: string; readonly instance: string }
  /** A newer ID token, which a platform presented with a renewal. */
  | { readonly kind: "renewal"; readonly client: string; readonly instance: string };

/** A closed switch, as it is kept, pushed and put on record. */
export interface Switch {
  readonly id: string;
  readonly reach: Reach;
  readonly target: Target;
  readonly act: Act;
  readonly reason: string;
  /** An admin: a human's id. Else `break-glass:<name>`, `transmitter:<name>`, `rule:<name>`, `platform:<name>`. */
  readonly by: string;
  readonly cause: SwitchCause | null;
  readonly atMs: number;
  /** When it opens by itself; null: when somebody opens it. */
  readonly untilMs: number | null;
  /** Of `narrow` alone: the groups that the human still has. */
  readonly groups?: readonly string[];
  /** Of `narrow` alone: when that was so. Who was enrolled on a later word of the provider is not in reach. */
  readonly eventAtMs?: number;
}

/** What the roster knows of an instance: everything a reach can select by. */
export interface Attributes {
  readonly instance: string;
  readonly human: string;
  /** A digest of the human's e-mail address, by which a person can be meant whose id nobody has at hand. */
  readonly emailDigest: string | null;
  /** When the identity provider stated the human's groups. */
  readonly groupsAtMs: number;
  readonly task: string;
  readonly agent: string;
  readonly agentVersion: string;
  readonly client: string;
  readonly upstreams: readonly string[];
  /** Instances that it descends from: a switch of one of them is its own. */
  readonly ancestors: readonly string[];
  /** Null: a human was there to delegate. */
  readonly mandate: string | null;
  readonly deadlineMs: number;
}

const HOLDS: Readonly<Record<TargetMember, (attributes: Attributes, value: string) => boolean>> = {
  instance: ({ instance, ancestors }, value) => instance === value || ancestors.includes(value),
  task: ({ task }, value) => task === value,
  human: ({ human, emailDigest }, value) => human === value || emailDigest === value,
  agent: ({ agent }, value) => agent === value,
  agentVersion: ({ agentVersion }, value) => agentVersion === value,
  upstream: ({ upstreams }, value) => upstreams.includes(value),
  mandate: ({ mandate }, value) => mandate === value,
};

/** Pure. A reach that is not known, or a target that lacks a member, holds everybody: unknown means no. */
export function isInReach(
  { reach, target, eventAtMs }: Pick<Switch, "reach" | "target" | "eventAtMs">,
  attributes: Attributes,
): boolean {
  if (eventAtMs !== undefined && attributes.groupsAtMs >= eventAtMs) return false;
  const members: readonly TargetMember[] = Object.hasOwn(REACHES, reach) ? REACHES[reach] : [];
  return members.every((member) => {
    const value = target[member];
    return value === undefined || HOLDS[member](attributes, value);
  });
}

/** Whether it closes a call to this upstream. */
export const closes = ({ act, target }: Switch, upstream: string): boolean =>
  act !== "narrow" && (target.upstream === undefined || target.upstream === upstream);

/** Whether it closes all that an instance does, or the calls of one upstream alone. */
export const isWhole = ({ act, target }: Switch): boolean => act !== "narrow" && target.upstream === undefined;

/** Whether it keeps a newcomer out: a pause of one upstream, and a narrowing, come along with the enrolment. */
export const refusesNewcomer = (sw: Switch): boolean => sw.act === "kill" || isWhole(sw);

/** Lifting these sets the most free, so it takes two. */
export const needsTwoToLift = ({ act, reach }: Switch): boolean =>
  act === "kill" && (reach === "everything" || reach === "upstream");

/** On record. A call's `target` is a path and an answer's `cause` a word, so that every field has one type in all records. */
export const switchFields = (sw: Switch): { readonly [key: string]: Json } => ({
  switch: sw.id,
  act: sw.act,
  reach: sw.reach,
  switchTarget: { ...sw.target } as { readonly [key: string]: Json },
  reason: sw.reason,
  by: sw.by,
  causedBy: sw.cause === null ? null : { ...sw.cause },
  accepted: sw.atMs,
  until: sw.untilMs,
  ...(sw.act === "narrow" ? { groups: [...(sw.groups ?? [])], groupsAt: sw.eventAtMs ?? null } : {}),
});
