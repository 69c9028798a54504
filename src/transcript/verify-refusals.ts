import type { Refusal } from "./verify-shapes.ts";

/** Which layers refuse by each kind. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  unauthenticated: ["credentials"],
  absent: ["route", "describe", "grant", "parent", "entitlement", "agent", "boundaries", "switch"],
  "too-large": ["describe"],
  limited: ["limits"],
  exhausted: ["limits"],
  pending: ["boundaries"],
  unavailable: ["gate"],
  "upstream-failed": ["gate"],
};

/** What the members of a refusal say of each other. */
export function findOfRefusal({ decision, upstream, target }: Refusal): string | null {
  const layers = Object.hasOwn(LAYERS, decision.kind) ? LAYERS[decision.kind]! : [];
  if (!layers.includes(decision.layer)) return `is refused as ${decision.kind} by ${decision.layer}`;
  const path = target.split("?", 1)[0]!;
  return upstream === null || path === `/${upstream}` || path.startsWith(`/${upstream}/`)
    ? null
    : "its target is not of its upstream";
}
