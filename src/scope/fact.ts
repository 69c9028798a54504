import { err, ok, type Result } from "../result.ts";
import type { Call, Json } from "./call.ts";

/** What a name in `where` speaks of: `table`, `query.limit`, `body./amount`. */
export type Fact =
  | { readonly source: "path"; readonly name: string }
  | { readonly source: "query"; readonly name: string }
  /** An RFC 6901 pointer, unescaped; no tokens mean the whole body. */
  | { readonly source: "body"; readonly tokens: readonly string[] };

const PATH_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
const POINTER = /^(?:\/(?:[^~/]|~[01])*)*$/;
/** RFC 6901 §4: no sign, no leading zero. */
const ARRAY_INDEX = /^(?:0|[1-9]\d*)$/;

export const parseFact = (text: string): Result<Fact, string> => {
  if (PATH_NAME.test(text)) return ok({ source: "path", name: text });
  if (text.startsWith("query.")) {
    const name = text.slice("query.".length);
    return name === "" ? err("the query parameter has no name") : ok({ source: "query", name });
  }
  if (text.startsWith("body.")) {
    const pointer = text.slice("body.".length);
    if (!POINTER.test(pointer)) return err("not a JSON pointer (RFC 6901)");
    return ok({ source: "body", tokens: pointer.split("/").slice(1).map(unescapeToken) });
  }
  return err("neither a path parameter nor query.<name> nor body.<pointer>");
};

// RFC 6901 §4: in this order, so that `~01` is `~1`.
const unescapeToken = (token: string): string => token.replaceAll("~1", "/").replaceAll("~0", "~");

/**
 * The value of a fact in a call; `undefined` where it is absent. An error where the gate and an upstream could see
 * different values: not even `absent` holds for such a fact.
 */
export const readFact = (
  fact: Fact,
  call: Call,
  path: ReadonlyMap<string, string>,
): Result<Json | undefined, string> => {
  switch (fact.source) {
    case "path": {
      const value = path.get(fact.name);
      return value === undefined ? err("no such path parameter") : ok(value);
    }
    case "query":
      return readQuery(fact.name, call.query);
    case "body":
      if (call.body.kind === "opaque") return err("the body is opaque");
      return call.body.kind === "none" ? ok(undefined) : readPointer(fact.tokens, call.body.value);
  }
};

const readQuery = (name: string, query: Call["query"]): Result<string | undefined, string> => {
  const tokens = tokenize(name);
  let value: string | undefined;
  for (const [otherName, otherValue] of query) {
    if (otherName === name) {
      if (value !== undefined) return err("a query parameter that appears twice");
      value = otherValue;
    } else if (isAlike(tokenize(otherName), tokens)) {
      return err("a query parameter that may be read as another");
    }
  }
  return ok(value);
};

/** A word of a parameter's name, and whether something that nests stands before it. */
interface Token {
  readonly word: string;
  readonly nested: boolean;
}

/**
 * PHP reads `.`, a space and a bracket without its other half as `_`; Rack, qs and binders of objects take brackets,
 * whole or not, and dots for a way into a structure. So nothing that separates is told from another, and what is empty
 * is not there: `account_id`, `[account_id]`, `account[id` and `account.id` are the same words.
 */
const tokenize = (name: string): readonly Token[] => {
  // Words at even places, what separates them at odd ones.
  const pieces = foldCase(name).split(/([[\]._\s]+)/);
  return pieces.flatMap((word, i) =>
    i % 2 === 1 || word === "" ? [] : [{ word, nested: /[^_]/.test(pieces[i - 1] ?? "") }],
  );
};

/**
 * The same words, or the one is a structure that holds the other: `filter` and `filter[state]`. Not `page` and
 * `page_size`: `_` alone leads into nothing. Where words end is no difference: `pageSize` is `page_size`'s other name in
 * Protocol Buffers' JSON, and its readers take both.
 */
const isAlike = (some: readonly Token[], others: readonly Token[]): boolean =>
  isWithin(some, others) || isWithin(others, some);

const isWithin = (outer: readonly Token[], inner: readonly Token[]): boolean => {
  const sought = outer.map(({ word }) => word).join("");
  let joined = "";
  for (const { word, nested } of inner) {
    if (nested && joined === sought) return true;
    joined += word;
  }
  return joined === sought;
};

const readPointer = (tokens: readonly string[], body: Json): Result<Json | undefined, string> => {
  let value = body;
  for (const token of tokens) {
    if (isArray(value)) {
      // A name where the body has a list, as in a batch: absent here, there in each of its items.
      if (!ARRAY_INDEX.test(token)) return err("a name where the body has an array");
      const item = value[Number(token)];
      if (item === undefined) return ok(undefined);
      value = item;
    } else if (typeof value === "object" && value !== null) {
      if (Object.keys(value).some((key) => isAlikeKey(key, token))) return err("a key that may be read as another");
      const member = Object.hasOwn(value, token) ? value[token] : undefined;
      if (member === undefined) return ok(undefined);
      value = member;
    } else {
      return ok(undefined);
    }
  }
  return ok(value);
};

/**
 * Go's encoding/json takes `Amount` for `amount`, and the last of both wins; its folding keeps the length. Protocol Buffers'
 * JSON takes `max_amount` for `maxAmount`.
 */
const isAlikeKey = (key: string, token: string): boolean => {
  if (key === token) return false;
  const [some, other] = [key.replaceAll("_", ""), token.replaceAll("_", "")];
  return some.length === other.length && foldCase(some) === foldCase(other);
};

const isArray = (value: Json): value is readonly Json[] => Array.isArray(value);

// Upper first: `ſ` and `K` (Kelvin) fold to `s` and `k`.
const foldCase = (name: string): string => name.toUpperCase().toLowerCase();
