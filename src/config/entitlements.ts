import * as z from "zod";
import { emailDigest } from "../identity/email-digest.ts";
import type { Entry } from "../scope/entry.ts";
import { entries } from "./layers.ts";

/** What humans may do: by the groups that the identity provider says they are in, and by name. */

/** As records and switches know a human: base64url of a SHA-256. */
const HUMAN_ID = /^[A-Za-z0-9_-]{43}$/;
const ADDRESS = /^[^\s@]+@[^\s@]+$/;

const isAddress = (name: string): boolean => name.includes("@");

const isHumanName = (name: string): boolean => HUMAN_ID.test(name) || (name.length <= 320 && ADDRESS.test(name));

/** Of two spellings of one address, nobody could say which counts. */
const humans = z.record(z.string(), entries).superRefine((named, ctx) => {
  const seen = new Map<string, string>();
  for (const name of Object.keys(named)) {
    const before = seen.get(keyOf(name));
    if (!isHumanName(name))
      ctx.addIssue({ code: "custom", path: [name], message: "an e-mail address, or a human's id of 43 characters" });
    else if (before !== undefined)
      ctx.addIssue({ code: "custom", path: [name], message: `the same address as ${before}` });
    seen.set(keyOf(name), name);
  }
});

/** A human in no group here, and without a row of their own, may do nothing. */
export const entitlements = z.strictObject({
  groups: z.record(z.string(), entries),
  /** By e-mail address, or by id. */
  humans: humans.default({}),
});
export type Entitlements = z.output<typeof entitlements>;

/** What a human goes by in records, where an address has no place. */
const keyOf = (name: string): string => (isAddress(name) ? emailDigest(name) : name);

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
  const byKey = known.get(of) ?? new Map(Object.entries(of.humans).map(([name, entries]) => [keyOf(name), entries]));
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
