import type { Config } from "../config/define.ts";
import type { Switch } from "./switch.ts";

/** What a human has lost since the identity provider stated the groups of an instance. */

export interface Stated {
  readonly groups: readonly string[];
  /** When the provider said so. */
  readonly groupsAtMs: number;
}

/** Above the skew that an ID token's `iat` is allowed. */
const SKEW_MS = 120_000;

/** Pure. Monotone: every narrowing of a later time takes away, none gives back, and their order does not matter. */
export function groupsLeft({ groups, groupsAtMs }: Stated, switches: readonly Switch[]): readonly string[] {
  return switches.reduce(
    // Of one that does not say which groups are left, none is.
    (left, { act, groups: kept = [], eventAtMs = Number.POSITIVE_INFINITY }) =>
      act === "narrow" && groupsAtMs < eventAtMs ? left.filter((group) => kept.includes(group)) : left,
    groups,
  );
}

/** From then on no identity token that is older than the narrowing is taken any more: no newcomer can be in its reach. */
export const narrowingUntilMs = ({ identityProviders }: Pick<Config, "identityProviders">, eventAtMs: number): number =>
  eventAtMs +
  SKEW_MS +
  Math.max(0, ...Object.values(identityProviders).map(({ maxTokenAgeSeconds }) => maxTokenAgeSeconds)) * 1_000;

/** The last moment of a second: what a provider says in whole seconds was said at no later one. */
export const endOfSecondMs = (seconds: number): number => Math.floor(seconds) * 1_000 + 999;
