import type { Call } from "./call.ts";
import type { Entry } from "./entry.ts";
import { parseFact, readFact } from "./fact.ts";
import { evaluate, implies, type Predicate } from "./predicate.ts";
import { bindOperation, coversMethod, type Operation, type Part } from "./template.ts";

/** One bound on a call: the grant, its parent, the human's entitlement, the agent's ceiling, the organisation's boundary. */
export interface Layer {
  readonly name: string;
  readonly entries: readonly Entry[];
}

/** The first entry of a layer that allows a call, by its place, and the operation that it is, as written. */
export interface Permit {
  readonly entry: number;
  readonly operation: string;
}

export type Decision =
  /** One permit for each layer, in their order. */
  { readonly ok: true; readonly permits: readonly Permit[] } | { readonly ok: false; readonly layer: string };

type Where = ReadonlyMap<string, Predicate>;

/** Every layer must allow the call by an entry of its own. The first that doesn't is named; no layers allow nothing. */
export const decide = (layers: readonly Layer[], call: Call): Decision => {
  if (layers.length === 0) return { ok: false, layer: "none" };
  const permits: Permit[] = [];
  for (const { name, entries } of layers) {
    const permit = findPermit(entries, call);
    if (permit === undefined) return { ok: false, layer: name };
    permits.push(permit);
  }
  return { ok: true, permits };
};

/** Whether one operation of the entry is this call, with every condition holding on its facts. */
export const matches = (entry: Entry, call: Call): boolean => findOperation(entry, call) !== undefined;

const findOperation = (entry: Entry, call: Call): Operation | undefined =>
  entry.upstream !== call.upstream
    ? undefined
    : entry.operations.find((operation) => {
        const path = bindOperation(operation, call.method, call.segments);
        return path !== undefined && holds(entry.where, call, path);
      });

/** The first entry that allows the call, by its place, and the operation that it is. Undefined: none does. */
export const findPermit = (entries: readonly Entry[], call: Call): Permit | undefined => {
  for (const [place, entry] of entries.entries()) {
    const operation = findOperation(entry, call);
    if (operation !== undefined) return { entry: place, operation: operation.text };
  }
  return undefined;
};

const holds = (where: Where, call: Call, path: ReadonlyMap<string, string>): boolean => {
  for (const [name, predicate] of where) {
    const fact = parseFact(name);
    if (!fact.ok) return false;
    const value = readFact(fact.value, call, path);
    // Unknown means no: what cannot be read prohibits, even under `absent`.
    if (!value.ok || !evaluate(predicate, value.value)) return false;
  }
  return true;
};

/** What `describe` must read of a call for these entries to be evaluated. */
export const factsNeeded = (entries: readonly Entry[]): { query: Set<string>; body: boolean } => {
  const needed = { query: new Set<string>(), body: false };
  for (const name of entries.flatMap((entry) => [...entry.where.keys()])) {
    const fact = parseFact(name);
    if (fact.ok && fact.value.source === "query") needed.query.add(fact.value.name);
    if (fact.ok && fact.value.source === "body") needed.body = true;
  }
  return needed;
};

/** INVARIANT: if true, no call matches `narrower` and not `wider`. False when unsure. */
export const covers = (wider: Entry, narrower: Entry): boolean => coveredBy([wider], narrower);

/** Each operation of `narrower` must fit in a single entry of the layer: two entries never add up to one permission. */
export const coveredBy = (layer: readonly Entry[], narrower: Entry): boolean =>
  narrower.operations.length > 0 && findUncovered(layer, narrower) === undefined;

/** The first operation of `narrower` that fits in no single entry of the layer. Undefined: there is none. */
export const findUncovered = (layer: readonly Entry[], narrower: Entry): Operation | undefined =>
  narrower.operations.find((operation) => !layer.some((wider) => coversOperation(wider, narrower, operation)));

const coversOperation = (wider: Entry, narrower: Entry, operation: Operation): boolean =>
  wider.type === narrower.type &&
  wider.upstream === narrower.upstream &&
  coversConditions(wider.where, narrower.where) &&
  wider.operations.some(
    (widerOperation) =>
      coversMethod(widerOperation.method, operation.method) &&
      coversPath(widerOperation, wider.where, operation, narrower.where),
  );

/** Query and body facts have the same name on both sides; path facts are compared by their place in the path. */
const coversConditions = (wider: Where, narrower: Where): boolean => {
  for (const [name, predicate] of wider) {
    const fact = parseFact(name);
    if (!fact.ok) return false;
    if (fact.value.source === "path") continue;
    const narrowerPredicate = narrower.get(name);
    if (narrowerPredicate === undefined || !implies(narrowerPredicate, predicate)) return false;
  }
  return true;
};

const coversPath = (wider: Operation, widerWhere: Where, narrower: Operation, narrowerWhere: Where): boolean => {
  for (const [index, part] of wider.parts.entries()) {
    const run = part.kind === "rest" ? narrower.parts.slice(index) : narrower.parts.slice(index, index + 1);
    if (!coversRun(part, run)) return false;
    const bound = part.kind === "literal" ? equalTo(part.text) : widerWhere.get(part.name);
    if (bound === undefined) continue;
    const known = describeRun(run, narrowerWhere);
    if (known === undefined || !implies(known, bound)) return false;
  }
  return wider.parts.at(-1)?.kind === "rest" || narrower.parts.length === wider.parts.length;
};

/** Whether what the run binds is of a shape that the part binds, whatever its values. */
const coversRun = (part: Part, run: readonly Part[]): boolean => {
  const [first] = run;
  if (first === undefined) return false;
  if (part.kind === "literal") return first.kind !== "rest";
  const isFilled = run.every((other) => other.kind !== "literal" || other.text !== "");
  return isFilled && (part.kind === "rest" || first.kind !== "rest");
};

/**
 * What is known of the segments that a run of parts binds, joined by `/`: a predicate that every such text satisfies,
 * or `undefined` where nothing is known.
 */
const describeRun = (run: readonly Part[], where: Where): Predicate | undefined => {
  let lead = "";
  for (const [index, part] of run.entries()) {
    const isLast = index === run.length - 1;
    if (part.kind === "literal") {
      lead += isLast ? part.text : `${part.text}/`;
      continue;
    }
    const own = where.get(part.name);
    if (isLast && lead === "") return own;
    if (isLast && own?.kind === "list") return { kind: "list", items: own.items.map((item) => `${lead}${item}`) };
    const prefix = own?.kind === "prefix" ? lead + own.prefix : lead;
    return prefix === "" ? undefined : { kind: "prefix", prefix };
  }
  return equalTo(lead);
};

const equalTo = (text: string): Predicate => ({ kind: "list", items: [text] });
