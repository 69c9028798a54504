import type { Config } from "../config/define.ts";
import type { Switch } from "./switch.ts";

/** What a human has lost since the identity provider stated the groups of an instance. */

export interface Stated {
  readonly groups: readonly string[];
  /** When the provider said so. */
  readonly groupsAtMs: number;
}

/** The groups that a human still had, and when. */
export interface Narrowing {
  readonly groups: readonly string[];
  readonly eventAtMs: number;
}

/** So far ahead of the gate's a provider's clock may be: a token of a moment before would pass for one of later. */
export const PROVIDER_AHEAD_MS = 60_000;
/** Above that. */
const SKEW_MS = 120_000;

/** Pure. Monotone: every narrowing of a later time takes away, none gives back, and their order does not matter. */
export const groupsLeft = (stated: Stated, switches: readonly Switch[]): readonly string[] =>
  narrowed(
    stated,
    switches.flatMap(({ act, groups = [], eventAtMs = Number.POSITIVE_INFINITY }) =>
      // Of one that does not say which groups are left, none is.
      act === "narrow" ? [{ groups, eventAtMs }] : [],
    ),
  );

export const narrowed = ({ groups, groupsAtMs }: Stated, narrowings: readonly Narrowing[]): readonly string[] =>
  narrowings.reduce(
    (left, { groups: kept, eventAtMs }) =>
      groupsAtMs < eventAtMs ? left.filter((group) => kept.includes(group)) : left,
    groups,
  );

/** So long an identity token is taken, by a clock that is off. */
const longestTokenMs = ({ identityProviders }: Pick<Config, "identityProviders">): number =>
  SKEW_MS +
  Math.max(0, ...Object.values(identityProviders).map(({ maxTokenAgeSeconds }) => maxTokenAgeSeconds)) * 1_000;

/** From then on no identity token that is older than the narrowing is taken any more: no newcomer can be in its reach. */
export const narrowingUntilMs = (config: Pick<Config, "identityProviders">, eventAtMs: number): number =>
  eventAtMs + longestTokenMs(config);

/** What was opened longer ago than this concerns nobody: who was there is over, and whoever comes has a later word of the provider. */
export const longestReachMs = (config: Pick<Config, "grants" | "identityProviders">): number =>
  Math.max(config.grants.taskSeconds * 1_000, longestTokenMs(config));

/** The last moment of a second: what a provider says in whole seconds was said at no later one. */
export const endOfSecondMs = (seconds: number): number => Math.floor(seconds) * 1_000 + 999;
