import type { Call, Json } from "./call.ts";
import { coveredBy, findPermit, type Permit } from "./decide.ts";
import type { Entry } from "./entry.ts";
import { parseFact, readFact } from "./fact.ts";
import { evaluate } from "./predicate.ts";
import { bindOperation, type Operation, type Part } from "./template.ts";

/**
 * Pure. Why entries do not allow a call, for people who write them. It decides nothing: what allows a call is
 * `findPermit`'s to say, and what it says is asked here first.
 */

/** A condition that does not hold: the fact, what was asked of it as written, and what the call has. */
export interface FailedCondition {
  readonly fact: string;
  readonly wanted: Json;
  /** Absent where the call has no such fact. */
  readonly seen?: Json;
  /** Why it can't be read, where that is so. */
  readonly unreadable?: string;
}

/** How near an operation came, the nearest kind first. */
export type Miss = { readonly entry: number; readonly operation: string } & (
  | { readonly kind: "condition"; readonly failed: readonly FailedCondition[] }
  | { readonly kind: "method"; readonly method: string }
  /** `matched` segments fit; then the template has `wanted` and the call `seen` (absent: there is nothing more). */
  | { readonly kind: "path"; readonly matched: number; readonly wanted?: string; readonly seen?: string }
);

export interface Explanation {
  readonly permit: Permit | undefined;
  /** Of entries of this upstream, the nearest first. Empty where the call is allowed. */
  readonly misses: readonly Miss[];
}

export function explain(entries: readonly Entry[], call: Call): Explanation {
  const permit = findPermit(entries, call);
  if (permit !== undefined) return { permit, misses: [] };
  const misses = entries.flatMap((entry, place) =>
    entry.upstream === call.upstream ? entry.operations.map((operation) => missOf(entry, place, operation, call)) : [],
  );
  return { permit, misses: misses.sort((a, b) => distanceOf(a) - distanceOf(b)) };
}

const FAR = 1_000_000;

function distanceOf(miss: Miss): number {
  switch (miss.kind) {
    case "condition":
      return miss.failed.length;
    case "method":
      return FAR;
    case "path":
      return 2 * FAR - miss.matched;
  }
}

function missOf(entry: Entry, place: number, operation: Operation, call: Call): Miss {
  const at = { entry: place, operation: operation.text };
  const path = bindOperation(operation, call.method, call.segments);
  if (path !== undefined) return { ...at, kind: "condition", failed: failedOf(entry, call, path) };
  if (bindOperation({ ...operation, method: call.method }, call.method, call.segments) !== undefined)
    return { ...at, kind: "method", method: operation.method };
  return { ...at, kind: "path", ...whereItParts(operation.parts, call.segments) };
}

function failedOf(entry: Entry, call: Call, path: ReadonlyMap<string, string>): FailedCondition[] {
  return [...entry.where].flatMap(([name, predicate]): FailedCondition[] => {
    const wanted = (entry.source["where"] as { readonly [fact: string]: Json } | undefined)?.[name] ?? null;
    const fact = parseFact(name);
    const value = fact.ok ? readFact(fact.value, call, path) : fact;
    if (!value.ok) return [{ fact: name, wanted, unreadable: value.error }];
    if (evaluate(predicate, value.value)) return [];
    return [{ fact: name, wanted, ...(value.value === undefined ? {} : { seen: value.value }) }];
  });
}

function whereItParts(parts: readonly Part[], segments: readonly string[]) {
  let matched = 0;
  while (fits(parts[matched], segments[matched])) matched++;
  const part = parts[matched];
  const seen = segments[matched];
  return {
    matched,
    ...(part === undefined ? {} : { wanted: textOf(part) }),
    ...(seen === undefined ? {} : { seen }),
  };
}

const fits = (part: Part | undefined, segment: string | undefined): boolean =>
  part !== undefined && segment !== undefined && (part.kind === "literal" ? part.text === segment : segment !== "");

const textOf = (part: Part): string =>
  part.kind === "literal" ? part.text : part.kind === "rest" ? `{+${part.name}}` : `{${part.name}}`;

/** The facts of a call that conditions of these entries speak of, as the first operation that fits binds them. */
export function factsOf(entries: readonly Entry[], call: Call): ReadonlyMap<string, Json> {
  const facts = new Map<string, Json>();
  for (const entry of entries) {
    if (entry.upstream !== call.upstream) continue;
    for (const operation of entry.operations) {
      const path = bindOperation(operation, call.method, call.segments);
      if (path === undefined) continue;
      for (const name of entry.where.keys()) {
        const fact = parseFact(name);
        const value = fact.ok ? readFact(fact.value, call, path) : fact;
        if (value.ok && value.value !== undefined && !facts.has(name)) facts.set(name, value.value);
      }
    }
  }
  return facts;
}

/** Why a layer does not cover an operation of a scope: which of its entries would, but for conditions. */
export interface Uncovered {
  readonly operation: string;
  /** Empty: no entry has this method and path. */
  readonly nearest: readonly { readonly entry: number; readonly facts: readonly string[] }[];
}

/** Of an entry of a scope, the operations that no entry of the layer covers. Empty exactly where `coveredBy` says so. */
export function explainCover(layer: readonly Entry[], narrower: Entry): readonly Uncovered[] {
  return narrower.operations
    .map((operation) => ({ ...narrower, operations: [operation] }))
    .filter((one) => !coveredBy(layer, one))
    .map((one) => ({
      operation: one.operations[0]!.text,
      nearest: layer.flatMap((wider, entry) => {
        if (!coveredBy([{ ...wider, where: new Map() }], one)) return [];
        const facts = [...wider.where].filter(
          (condition) => !coveredBy([{ ...wider, where: new Map([condition]) }], one),
        );
        return [{ entry, facts: facts.map(([name]) => name) }];
      }),
    }));
}
