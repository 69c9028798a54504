import type { Call, Json } from "./call.ts";
import { decodeAgain, MORE_DECODINGS } from "./decode-again.ts";
import type { Entry } from "./entry.ts";
import { parseFact, readFact } from "./fact.ts";
import { evaluate, type Predicate } from "./predicate.ts";
import { bindOperation, type Operation, type Part } from "./template.ts";

/**
 * Pure. What a call may mean to some upstream, for rules that take something away: a bound that allows must match for
 * certain, and one that redacts or asks must not be passed by another spelling of the same.
 */

/** Its literals as `readingsOf` has segments. */
export const folded = (operation: Operation): Operation => ({ ...operation, parts: operation.parts.map(foldPart) });

const foldPart = (part: Part): Part => (part.kind === "literal" ? { ...part, text: part.text.toLowerCase() } : part);

const known = new WeakMap<readonly string[], readonly (readonly string[])[]>();

/**
 * As some upstream may read a path: whatever its case, with or without a slash at its end, `%2F` as a slash, without
 * `;parameters`, slashes in a row as one, decoded once more than it was. Of one call, which many operations are held against, made once.
 */
export function readingsOf(segments: readonly string[]): readonly (readonly string[])[] {
  let readings = known.get(segments);
  if (readings === undefined) {
    readings = makeReadings(segments);
    known.set(segments, readings);
  }
  return readings;
}

function makeReadings(segments: readonly string[]): readonly (readonly string[])[] {
  const readings = [...readingsAsDecoded(segments)];
  let last = segments;
  for (let round = 0; round < MORE_DECODINGS; round++) {
    const again = last.map(decodeAgain);
    if (again.every((segment, i) => segment === last[i])) break;
    last = again;
    readings.push(...readingsAsDecoded(last));
  }
  return readings;
}

function readingsAsDecoded(segments: readonly string[]): readonly (readonly string[])[] {
  const lower = segments.map((segment) => segment.toLowerCase());
  const parted = lower.flatMap((segment) => segment.split("/")).map((segment) => segment.split(";")[0]!);
  const merged = parted.filter((segment, i) => segment !== "" || i === parted.length - 1);
  return [lower, merged].flatMap((reading) => [
    reading,
    reading.at(-1) === "" ? reading.slice(0, -1) : [...reading, ""],
  ]);
}

/** Whether some upstream may read the call as this operation. */
export function mayBeOperation(operation: Operation, { method, segments }: Pick<Call, "method" | "segments">): boolean {
  const spelling = folded(operation);
  return readingsOf(segments).some((reading) => bindOperation(spelling, method, reading) !== undefined);
}

/** The first operation of the entry that the call may be, if no condition fails for certain. */
export function findMeant(entry: Pick<Entry, "upstream" | "operations" | "where">, call: Call): Operation | undefined {
  if (entry.upstream !== call.upstream) return undefined;
  const readings = [call.segments, ...readingsOf(call.segments)];
  return entry.operations.find((operation) =>
    [operation, folded(operation)].some((spelling) =>
      readings.some((reading) => {
        const path = bindOperation(spelling, call.method, reading);
        return path !== undefined && mayHold(entry.where, call, path);
      }),
    ),
  );
}

function mayHold(where: Entry["where"], call: Call, path: ReadonlyMap<string, string>): boolean {
  for (const [name, predicate] of where) {
    const fact = parseFact(name);
    const value = fact.ok ? readFact(fact.value, call, path) : fact;
    // Unknown means that it may: a person looks.
    if (value.ok && !evaluate(predicate, value.value) && !mayBe(predicate, value.value)) return false;
  }
  return true;
}

/** Whether what is there, and does not satisfy the predicate as it is written, may be read as something that does. */
function mayBe(predicate: Predicate, fact: Json | undefined): boolean {
  if (fact === undefined) return false;
  switch (predicate.kind) {
    case "list":
      return isStructure(fact) || predicate.items.some((item) => fold(String(item)) === fold(String(fact)));
    case "prefix":
      return typeof fact !== "string" || fold(fact).startsWith(fold(predicate.prefix));
    // A number in another spelling, or in a structure.
    case "range":
      return typeof fact !== "number" && !isPlainNumber(fact);
    case "maxLength":
      return typeof fact !== "string";
    case "absent":
      return fact === null;
  }
}

const isStructure = (fact: Json): boolean => typeof fact === "object" && fact !== null;

/** One that a range has compared. */
const isPlainNumber = (fact: Json): boolean =>
  evaluate({ kind: "range", min: Number.NEGATIVE_INFINITY, max: Number.POSITIVE_INFINITY }, fact);

// Upper first: `ſ` and `K` (Kelvin) fold to `s` and `k`.
const fold = (text: string): string => text.normalize("NFKC").trim().toUpperCase().toLowerCase();
