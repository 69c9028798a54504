import type { Config } from "../config/define.ts";
import { type Entitled, entitlementParts } from "../config/entitlements.ts";
import { absent, type Denial } from "../denial.ts";
import { err, ok, type Result } from "../result.ts";
import type { Call, Json } from "../scope/call.ts";
import { decide, findUncovered, type Layer, type Permit } from "../scope/decide.ts";
import { type Entry, readEntries } from "../scope/entry.ts";

/** What bounds an instance besides its own grant. */
export type CeilingName = "parent" | "entitlement" | "agent" | "boundaries";

export interface Ceiling extends Layer {
  readonly name: CeilingName;
  /** Where each entry stands, as a person finds it: `agents.triage-bot.ceiling[0]`. */
  readonly places: readonly string[];
}

/** On record, with each call: by which entry of this layer it was allowed. */
export interface CeilingPermit {
  readonly layer: CeilingName;
  readonly at: string;
  readonly operation: string;
}

/** For whom, and by what, somebody acts: all that ceilings depend on. */
export interface Bounded extends Entitled {
  readonly agent: string;
  /** Of the parent's grant; null where there is no parent. */
  readonly parentScope: readonly Json[] | null;
  /** Of whom it descends: what such an agent may do no more, it can't have done. */
  readonly agentsAbove?: readonly string[];
}

/** As the configuration has them now. */
export function ceilingsOf({ entitlements, agents, boundaries }: Config, who: Bounded): readonly Ceiling[] {
  return [
    ...parentCeiling(who.parentScope),
    ceiling("entitlement", entitlementParts(entitlements, who)),
    ...[...new Set([who.agent, ...(who.agentsAbove ?? [])])].map((agent) =>
      ceiling("agent", [[`agents.${agent}.ceiling`, own(agents, agent)?.ceiling ?? []]]),
    ),
    ceiling("boundaries", [["boundaries", boundaries]]),
  ];
}

/** It was parsed when it was granted. What can't be read now allows nothing. */
function parentCeiling(scope: readonly Json[] | null): readonly Ceiling[] {
  if (scope === null) return [];
  const entries = readEntries(scope, "");
  return [ceiling("parent", [["parent", entries.ok ? entries.value : []]])];
}

const own = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;

const ceiling = (
  name: CeilingName,
  parts: readonly (readonly [place: string, entries: readonly Entry[]])[],
): Ceiling => ({
  name,
  entries: parts.flatMap(([, entries]) => entries),
  places: parts.flatMap(([place, entries]) => entries.map((_, i) => `${place}[${i}]`)),
});

/** Pure, asked on every call: by what each ceiling allows it, or the first that does not. */
export function permitsOf(ceilings: readonly Ceiling[], call: Call): Result<readonly CeilingPermit[], Denial> {
  const decision = decide(ceilings, call);
  if (!decision.ok) return err(absent(decision.layer as CeilingName, "not within the ceiling"));
  return ok(decision.permits.map((permit, i) => named(ceilings[i]!, permit)));
}

/** What a scope asks for beyond a ceiling. */
export interface Excess {
  /** Its place in the scope. */
  readonly entry: number;
  /** As it was asked for. */
  readonly operation: string;
  readonly layer: CeilingName;
}

/** Pure, asked when somebody is provisioned: every entry within every ceiling, each operation by one entry of that. Null: so it is. */
export function findExcess(scope: readonly Entry[], ceilings: readonly Ceiling[]): Excess | null {
  for (const [i, entry] of scope.entries())
    for (const { name, entries } of ceilings) {
      const operation = findUncovered(entries, entry);
      if (operation !== undefined) return { entry: i, operation: operation.text, layer: name };
    }
  return null;
}

const named = ({ name, places }: Ceiling, { entry, operation }: Permit): CeilingPermit => ({
  layer: name,
  at: places[entry]!,
  operation,
});
