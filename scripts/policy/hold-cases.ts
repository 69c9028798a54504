// A table of cases, held to a configuration: which are as expected, and which entries no case was about.

import type { Config } from "../../src/config/define.ts";
import type { CallCase, PolicyCase, RequestCase } from "../../src/config/policy-tests.ts";
import { lineageOf, PolicyError, parseScope, readCall } from "./asked.ts";
import { type CallExplanation, explainCall } from "./explain-call.ts";
import { explainRequest, type RequestExplanation } from "./explain-request.ts";

export interface HeldCase {
  readonly name: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly found: string;
  readonly explanation: CallExplanation | RequestExplanation;
}

export interface HeldTable {
  readonly cases: readonly HeldCase[];
  /** Entries of the configuration by which no case that is as expected was allowed. */
  readonly unexercised: readonly string[];
}

/** Throws a `PolicyError` that names the case where one can't be judged. */
export function holdCases(config: Config, cases: readonly PolicyCase[], nowMs: number): HeldTable {
  const exercised = new Set<string>();
  const held = cases.map((one, i) => {
    try {
      const { places, ...result } = "request" in one ? holdRequest(config, one, nowMs) : holdCall(config, one, nowMs);
      if (result.ok) for (const place of places) exercised.add(place);
      return result;
    } catch (cause) {
      if (cause instanceof PolicyError) throw new PolicyError(`[${i}] ${one.name}: ${cause.message}`);
      throw cause;
    }
  });
  return { cases: held, unexercised: placesOf(config).filter((place) => !exercised.has(place)) };
}

type Held = HeldCase & { readonly places: readonly string[] };

function holdCall(config: Config, one: CallCase, nowMs: number): Held {
  const scope = one.scope === undefined ? null : parseScope(one.scope, "scope");
  const who = lineageOf(config, one, nowMs);
  const explanation = explainCall(config, readCall(one, config.origin), who, scope);
  const { verdict, layer, layers } = explanation;
  const places = layers.flatMap(({ at }) => (at === undefined ? [] : [at]));
  const named = { name: one.name, explanation, places };
  if (one.expect === "refused") {
    const expected = one.layer === undefined ? "refused" : `refused by ${one.layer}`;
    const isAsExpected = verdict === "refused" && (one.layer === undefined || one.layer === layer);
    return { ...named, ok: isAsExpected, expected, found: say(verdict, layer) };
  }
  const asked = one.layer ?? (scope === null ? "entitlement" : "grant");
  const by = layers.find((candidate) => candidate.layer === asked);
  const isBy = (one.operation ?? by?.operation) === by?.operation && (one.entry ?? by?.at) === by?.at;
  const isNamed = one.operation !== undefined || one.entry !== undefined;
  const parts = [one.operation, one.entry].filter((part) => part !== undefined);
  return {
    ...named,
    ok: verdict === one.expect && (!isNamed || (by !== undefined && isBy)),
    expected: isNamed ? `${one.expect}, ${asked} by ${parts.join(" of ")}` : one.expect,
    found:
      isNamed && verdict === one.expect
        ? `${verdict}, ${asked} by ${by?.operation ?? "nothing"} of ${by?.at ?? "nothing"}`
        : say(verdict, layer),
  };
}

const say = (verdict: CallExplanation["verdict"], layer: string | null): string =>
  verdict === "refused" ? `refused by ${layer}` : verdict;

function holdRequest(config: Config, { name, request, expect, entry, layer }: RequestCase, nowMs: number): Held {
  const explanation = explainRequest(config, request.authorization_details, lineageOf(config, request, nowMs));
  const spell = (by: string | null | undefined, at: number | null | undefined): string =>
    `refused${by == null ? "" : ` by ${by}`}${at == null ? "" : `, authorization_details[${at}]`}`;
  const isThere =
    (layer === undefined || layer === explanation.layer) && (entry === undefined || entry === explanation.entry);
  return {
    name,
    explanation,
    places: explanation.heldBy,
    ok: explanation.verdict === expect && isThere,
    expected: expect === "granted" ? expect : spell(layer, entry),
    found: explanation.verdict === "granted" ? "granted" : spell(explanation.layer, explanation.entry),
  };
}

/** Every entry that the configuration holds, as ceilings name them. */
const placesOf = ({ entitlements, agents, boundaries }: Config): readonly string[] => {
  const each = (place: string, { length }: { readonly length: number }) =>
    Array.from({ length }, (_, i) => `${place}[${i}]`);
  return [
    ...Object.entries(entitlements).flatMap(([kind, table]) =>
      Object.entries(table).flatMap(([name, entries]) => each(`entitlements.${kind}.${name}`, entries)),
    ),
    ...Object.entries(agents).flatMap(([name, { ceiling }]) => each(`agents.${name}.ceiling`, ceiling)),
    ...each("boundaries", boundaries),
  ];
};
