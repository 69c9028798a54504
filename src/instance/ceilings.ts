import type { Config } from "../config/define.ts";
import { absent, type Denial } from "../denial.ts";
import type { Call } from "../scope/call.ts";
import { decide, type Layer } from "../scope/decide.ts";

/** What bounds an instance besides its own grant, as the configuration has it now. */
export function ceilingsOf(
  { entitlements, agents, boundaries }: Config,
  who: { readonly groups: readonly string[]; readonly agent: string },
): readonly Layer[] {
  const entitled = who.groups.flatMap((group) =>
    Object.hasOwn(entitlements.groups, group) ? entitlements.groups[group]! : [],
  );
  return [
    { name: "entitlement", entries: entitled },
    { name: "agent", entries: Object.hasOwn(agents, who.agent) ? agents[who.agent]!.ceiling : [] },
    { name: "boundaries", entries: boundaries },
  ];
}

/** Pure, asked on every call. Null: within every ceiling. */
export function exceeds(ceilings: readonly Layer[], call: Call): Denial | null {
  const decision = decide(ceilings, call);
  return decision.ok
    ? null
    : absent(decision.layer as "entitlement" | "agent" | "boundaries", "not within the ceiling");
}
