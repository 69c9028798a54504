import * as z from "zod";
import type { Entry } from "../scope/entry.ts";
import { HUMAN_NAME, isHumanName, keyOfHumanName } from "./human-name.ts";
import { entries } from "./layers.ts";

/** What humans may do: by the groups that the identity provider says they are in, and by name. */

/** Of two spellings of one address, nobody could say which counts. */
const humans = z.record(z.string(), entries).superRefine((named, ctx) => {
  const seen = new Map<string, string>();
  for (const name of Object.keys(named)) {
    const before = seen.get(keyOfHumanName(name));
    if (!isHumanName(name)) ctx.addIssue({ code: "custom", path: [name], message: HUMAN_NAME });
    else if (before !== undefined)
      ctx.addIssue({ code: "custom", path: [name], message: `the same address as ${before}` });
    seen.set(keyOfHumanName(name), name);
  }
});

/** A human in no group here, and without a row of their own, may do nothing. */
export const entitlements = z.strictObject({
  groups: z.record(z.string(), entries),
  /** By e-mail address, or by id. */
  humans: humans.default({}),
});
export type Entitlements = z.output<typeof entitlements>;

export interface Entitled {
  readonly human: string;
  readonly emailDigest: string | null;
  /** The provider itself says that it has not verified the address: then that entitles to nothing. */
  readonly emailUnverified?: true | undefined;
  readonly groups: readonly string[];
}

/** Where entries stand, and the entries. A human who is named by address goes by the address's digest. */
export type Part = readonly [place: string, entries: readonly Entry[]];

/** Pure. All that this human is entitled to, as parts of one layer. */
export function entitlementParts(of: Entitlements, who: Entitled): readonly Part[] {
  const byKey = humansByKey(of);
  const keys = [who.human, who.emailUnverified === true ? null : who.emailDigest];
  return [
    ...who.groups.map(
      (group): Part => [`entitlements.groups.${group}`, Object.hasOwn(of.groups, group) ? of.groups[group]! : []],
    ),
    ...keys.flatMap((key): Part[] => (key === null ? [] : [[`entitlements.humans.${key}`, byKey.get(key) ?? []]])),
  ];
}

const known = new WeakMap<object, ReadonlyMap<string, readonly Entry[]>>();

/** Digests are made once for each configuration. */
function humansByKey(of: Entitlements): ReadonlyMap<string, readonly Entry[]> {
  const byKey =
    known.get(of) ?? new Map(Object.entries(of.humans).map(([name, entries]) => [keyOfHumanName(name), entries]));
  known.set(of, byKey);
  return byKey;
}

/** Every entry that anybody is entitled to. */
export const allEntitled = ({ groups, humans }: Entitlements): readonly Entry[] =>
  [...Object.values(groups), ...Object.values(humans)].flat();

/** Of the groups that a provider names, those that entitle to something: no other has a place in switches and records. */
export const groupsThatCount = ({ groups: known }: Entitlements, groups: readonly string[]): readonly string[] =>
  [...new Set(groups)].filter((group) => Object.hasOwn(known, group)).sort();

/** The place of a permit, where it is a group's: which group. A name may hold anything, brackets too. */
export const groupOfPlace = (place: string): string | null =>
  /^entitlements\.groups\.(.*)\[\d+\]$/s.exec(place)?.[1] ?? null;
