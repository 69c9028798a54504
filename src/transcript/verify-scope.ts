import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import type { BodyFacts, Call } from "../scope/call.ts";
import { matches } from "../scope/decide.ts";
import { type Entry, readEntries } from "../scope/entry.ts";
import { parseFact } from "../scope/fact.ts";
import { bindOperation, readOperation } from "../scope/template.ts";
import type { CallSaid } from "./verify-shapes.ts";

/**
 * Whether what a `call` says of its decision is so: by the entry of record 0's scope that it names, on the facts that stand in
 * the record, and in its body where that is needed. Of ceilings records say only the operation. What rules mean is said by
 * `scope`, which is pure; how a request is read is said here once more.
 */

/** A call whose entry speaks of its body. It is held to it when that is read. */
interface Waiting {
  readonly said: CallSaid;
  readonly place: string;
}

export class ScopeReader {
  #entries: readonly Entry[] | null = null;
  readonly #waiting = new Map<number, Waiting>();
  /** `seq` of calls of which something that their entry asks for is not on record. */
  readonly #unchecked: number[] = [];
  /** The operations of ceilings, as often as calls name them. */
  readonly #operations = new Map<string, ReturnType<typeof readOperation>>();

  readEnrolled(scope: readonly unknown[]): string | null {
    const entries = readEntries(scope, "scope");
    if (!entries.ok) return `its scope is none: ${entries.error.path} ${entries.error.message}`;
    this.#entries = entries.value;
    return null;
  }

  get entries(): readonly Entry[] | null {
    return this.#entries;
  }

  readCall(seq: number, place: string, said: CallSaid): string | null {
    const call = describe(said, said.body === null ? { kind: "none" } : { kind: "opaque" });
    if (!call.ok) return call.error;
    return this.#findOfCeilings(said, call.value) ?? this.#findOfGrant(seq, place, said, call.value);
  }

  #findOfGrant(seq: number, place: string, said: CallSaid, call: Call): string | null {
    if (this.#entries === null) return null;
    const { entry: at, operation } = said.decision;
    const entry = this.#entries[at];
    if (entry === undefined) return `was allowed by entry ${at} of its scope, which has none`;
    const one = withOperation(entry, operation);
    if (one === null) return `was allowed by an operation that entry ${at} of its scope does not have`;
    const beside = without(one, (name) => isOfBody(name) || isRedacted(said, name));
    if (!matches(beside, call)) return `is not what entry ${at} of its scope allows`;
    const needsBody = said.body !== null && [...one.where.keys()].some(isOfBody);
    const isWhole = [...one.where.keys()].every((name) => !isRedacted(said, name));
    if (needsBody && isWhole && !isRedactedBody(said)) this.#waiting.set(seq, { said, place });
    else if (needsBody || !isWhole) this.#unchecked.push(seq);
    else if (!matches(one, call)) return `is not what entry ${at} of its scope allows`;
    return null;
  }

  #findOfCeilings({ decision }: CallSaid, call: Call): string | null {
    for (const { layer, operation: text } of decision.ceilings) {
      const known = this.#operations.get(text) ?? readOperation(text);
      this.#operations.set(text, known);
      if (!known.ok || bindOperation(known.value, call.method, call.segments) === undefined)
        return `was allowed by an operation of the layer ${layer} that it is not`;
    }
    return null;
  }

  /** Whether the bytes of this request are to be read with `readBody`. */
  waitsFor(seq: number): boolean {
    return this.#waiting.has(seq);
  }

  /** The whole body of a request. Its digest is verified elsewhere. What is found is of the record at `place`. */
  readBody(seq: number, bytes: Uint8Array): { readonly place: string; readonly problem: string } | null {
    const { said, place } = this.#waiting.get(seq)!;
    this.#waiting.delete(seq);
    const { entry: at, operation } = said.decision;
    const json = parseStrictJsonBytes(bytes);
    const call = json.ok ? describe(said, { kind: "json", value: json.value }) : json;
    const one = withOperation(this.#entries![at]!, operation)!;
    if (call.ok && matches(one, call.value)) return null;
    return { place, problem: `is not what entry ${at} of its scope allows, by its body` };
  }

  /** Nothing is left to be read. */
  get unchecked(): readonly number[] {
    return [...this.#unchecked, ...this.#waiting.keys()].sort((a, b) => a - b);
  }
}

const isOfBody = (name: string): boolean => {
  const fact = parseFact(name);
  return fact.ok && fact.value.source === "body";
};

/** A rule took a value out of the query: of that parameter the record says nothing, and of others named alike. */
const isRedacted = ({ redacted = [] }: CallSaid, name: string): boolean =>
  name.startsWith("query.") && redacted.some(({ at }) => at.startsWith("query:"));

const isRedactedBody = ({ body }: CallSaid): boolean => body !== null && "trueBytes" in body;

const without = (entry: Entry, isLeftOut: (name: string) => boolean): Entry => ({
  ...entry,
  where: new Map([...entry.where].filter(([name]) => !isLeftOut(name))),
});

function withOperation(entry: Entry, text: string): Entry | null {
  const operation = entry.operations.find((one) => one.text === text);
  return operation === undefined ? null : { ...entry, operations: [operation] };
}

/** The facts of a recorded call, read from its target. */
function describe({ upstream, method, target }: CallSaid, body: BodyFacts): Result<Call, string> {
  const cut = target.indexOf("?");
  const path = cut === -1 ? target : target.slice(0, cut);
  const [root, named, ...segments] = path.split("/");
  if (root !== "" || named !== upstream || segments.length === 0) return err("its target is not of its upstream");
  try {
    const query =
      cut === -1
        ? []
        : target
            .slice(cut + 1)
            .split("&")
            .filter((piece) => piece !== "");
    return ok({
      upstream,
      method,
      segments: segments.map(decodeURIComponent),
      query: query.map((piece) => {
        const at = piece.indexOf("=");
        return at === -1 ? [decodeForm(piece), ""] : [decodeForm(piece.slice(0, at)), decodeForm(piece.slice(at + 1))];
      }),
      body,
    });
  } catch {
    return err("its target can't be read");
  }
}

const decodeForm = (text: string): string => decodeURIComponent(text.replaceAll("+", " "));
