import type { JsonObject } from "../grant/compact.ts";
import type { CallSaid } from "./verify-shapes.ts";

/** Every layer that bounds an instance has allowed each of its calls, in their order, by an entry of its own. */
export function findOfLayers(envelope: JsonObject, { decision }: CallSaid): string | null {
  const due = layersOf(envelope);
  const said = decision.ceilings.map(({ layer }) => layer);
  if (said.length !== due.length || due.some(({ layer }, i) => said[i] !== layer))
    return `was allowed by the layers ${said.join(", ") || "of nobody"}, and is bounded by ${due.map(({ layer }) => layer).join(", ")}`;
  const wrong = decision.ceilings.find(({ at }, i) => !at.startsWith(due[i]!.at) || !/\[\d+\]$/.test(at));
  return wrong === undefined ? null : `was allowed by ${wrong.at}, which is not of the layer ${wrong.layer}`;
}

/** The agent's own ceiling, and those of the agents above it, each once. */
function layersOf({ chain }: JsonObject): readonly { readonly layer: string; readonly at: string }[] {
  const agents = (Array.isArray(chain) ? chain : []).map((actor) => String((actor as JsonObject | null)?.["agent"]));
  const [own = "", ...above] = agents.toReversed();
  return [
    ...(agents.length > 1 ? [{ layer: "parent", at: "parent[" }] : []),
    { layer: "entitlement", at: "entitlements." },
    ...[...new Set([own, ...above.toReversed()])].map((agent) => ({ layer: "agent", at: `agents.${agent}.ceiling[` })),
    { layer: "boundaries", at: "boundaries[" },
  ];
}
