// A table of cases, held to a configuration: which are as expected, and which entries no case was about.

import type { Config } from "../../src/config/define.ts";
import type { CallCase, PolicyCase, RequestCase } from "../../src/config/policy-tests.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { PolicyError, parseScope, readCall, whoOf } from "./asked.ts";
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
export function holdCases(config: Config, cases: readonly PolicyCase[]): HeldTable {
  const exercised = new Set<string>();
  const held = cases.map((one, i) => {
    try {
      const { places, ...result } = "request" in one ? holdRequest(config, one) : holdCall(config, one);
      if (result.ok) for (const place of places) exercised.add(place);
      return result;
    } catch (cause) {
      if (cause instanceof PolicyError) throw new PolicyError(`[${i}] ${one.name}: ${cause.message}`);
      throw cause;
    }
  });
  const left = [...placesOf(config)].filter(([place]) => !exercised.has(place));
  return { cases: held, unexercised: left.map(([, written]) => written) };
}

type Held = HeldCase & { readonly places: readonly string[] };

function holdCall(config: Config, one: CallCase): Held {
  const scope = one.scope === undefined ? null : parseScope(one.scope, "scope");
  const who = whoOf(config, one);
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
  // In a table an address stands for its digest, which is what records have.
  const written = placesOf(config).get(by?.at ?? "") ?? by?.at;
  const isAt = one.entry === undefined || one.entry === by?.at || one.entry === written;
  const isBy = (one.operation ?? by?.operation) === by?.operation && isAt;
  const isNamed = one.operation !== undefined || one.entry !== undefined;
  const parts = [one.operation, one.entry].filter((part) => part !== undefined);
  return {
    ...named,
    ok: verdict === one.expect && (!isNamed || (by !== undefined && isBy)),
    expected: isNamed ? `${one.expect}, ${asked} by ${parts.join(" of ")}` : one.expect,
    found:
      isNamed && verdict === one.expect
        ? `${verdict}, ${asked} by ${by?.operation ?? "nothing"} of ${written ?? "nothing"}`
        : say(verdict, layer),
  };
}

const say = (verdict: CallExplanation["verdict"], layer: string | null): string =>
  verdict === "refused" ? `refused by ${layer}` : verdict;

function holdRequest(config: Config, { name, request, expect, entry, layer }: RequestCase): Held {
  const explanation = explainRequest(config, request.authorization_details, whoOf(config, request));
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

/** Every entry that the configuration holds: its place as records name it, and as the configuration has it. */
function placesOf({ entitlements, agents, boundaries }: Config): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  const add = (place: string, { length }: { readonly length: number }, written = place): void => {
    for (let i = 0; i < length; i++) places.set(`${place}[${i}]`, `${written}[${i}]`);
  };
  for (const [kind, table] of Object.entries(entitlements))
    for (const [name, entries] of Object.entries(table)) {
      const under = `entitlements.${kind}.`;
      // In records an address has no place: a human named by it goes by its digest.
      const isAddress = kind !== "groups" && name.includes("@");
      add(`${under}${isAddress ? emailDigest(name) : name}`, entries, `${under}${name}`);
    }
  for (const [name, { ceiling }] of Object.entries(agents)) add(`agents.${name}.ceiling`, ceiling);
  add("boundaries", boundaries);
  return places;
}
