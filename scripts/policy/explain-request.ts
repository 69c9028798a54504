// What the token endpoint would say to a request for a scope, and why.

import type { Config } from "../../src/config/define.ts";
import type { RequestLayer } from "../../src/config/policy-tests.ts";
import { type Bounded, ceilingsOf, findExcess } from "../../src/instance/ceilings.ts";
import type { Json } from "../../src/scope/call.ts";
import { coveredBy } from "../../src/scope/decide.ts";
import { parseAuthorizationDetails } from "../../src/scope/entry.ts";
import { explainCover } from "../../src/scope/explain.ts";

export interface RequestExplanation {
  readonly verdict: "granted" | "refused";
  /** What is exceeded first, and the place in `authorization_details`; null where that does not lead to an entry. */
  readonly layer: RequestLayer | null;
  readonly entry: number | null;
  /** Of a scope that can't be read. */
  readonly reason?: string;
  /** Operations that a layer does not hold, with those entries of it that would but for conditions. */
  readonly exceeds: readonly {
    readonly entry: number;
    readonly operation: string;
    readonly layer: RequestLayer;
    readonly nearest: readonly { readonly at: string; readonly facts: readonly string[] }[];
  }[];
  /** Entries of the configuration that hold an operation of it. */
  readonly heldBy: readonly string[];
}

export function explainRequest(config: Config, details: readonly Json[], who: Bounded): RequestExplanation {
  const parsed = parseAuthorizationDetails(JSON.stringify(details));
  if (!parsed.ok) {
    const { path, message } = parsed.error;
    const [, place] = /^authorization_details\[(\d+)\]/.exec(path) ?? [];
    return {
      verdict: "refused",
      layer: "authorization_details",
      entry: place === undefined ? null : Number(place),
      reason: `${path}: ${message}`,
      exceeds: [],
      heldBy: [],
    };
  }
  const ceilings = ceilingsOf(config, who);
  // In the order of the token endpoint: those of the agents above come last.
  const own = ceilingsOf(config, { ...who, agentsAbove: [] });
  const excess = findExcess(parsed.value, own) ?? findExcess(parsed.value, ceilings);
  const asked = parsed.value.flatMap((entry, place) => ceilings.map((ceiling) => ({ entry, place, ceiling })));
  return {
    verdict: excess === null ? "granted" : "refused",
    layer: excess?.layer ?? null,
    entry: excess?.entry ?? null,
    exceeds: asked.flatMap(({ entry, place, ceiling: { name, entries, places } }) =>
      explainCover(entries, entry).map(({ operation, nearest }) => ({
        entry: place,
        operation,
        layer: name,
        nearest: nearest.map(({ entry: at, facts }) => ({ at: places[at]!, facts })),
      })),
    ),
    heldBy: asked.flatMap(({ entry, ceiling: { entries, places } }) =>
      entry.operations.flatMap((operation) => {
        const by = entries.findIndex((wider) => coveredBy([wider], { ...entry, operations: [operation] }));
        return by === -1 ? [] : [places[by]!];
      }),
    ),
  };
}
