import { parseStrictJson } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "./call.ts";
import { parseFact } from "./fact.ts";
import { type Predicate, parsePredicate } from "./predicate.ts";
import { type Operation, parameterNames, parseOperation, readOperation } from "./template.ts";

/** UTF-8 bytes of `authorization_details`: it lies in each token's grant, and header lines end near 128 KiB. */
export const MAX_DETAILS_BYTES = 64 * 1024;
/** The worst call is compared with entries × operations templates: 64 × 128 = 8192, about a millisecond. */
export const MAX_ENTRIES = 64;
export const MAX_OPERATIONS = 128;
export const MAX_WHERE_FACTS = 32;

/** One permission: the operations of one upstream, under conditions that must all hold. */
export interface Entry {
  readonly type: "http";
  readonly upstream: string;
  readonly operations: readonly Operation[];
  readonly where: ReadonlyMap<string, Predicate>;
  /** The object as it was given, to be echoed as granted (RFC 9396 §7). */
  readonly source: { readonly [key: string]: Json };
}

/** `path` leads to the fault: `authorization_details[1].where.table`. The message never quotes a value. */
export interface ScopeError {
  readonly path: string;
  readonly message: string;
}

type Parsed<T> = Result<T, ScopeError>;
type Fields = { readonly [key: string]: unknown };

const UPSTREAM = /^[a-z][a-z0-9-]{0,30}$/;
const NAMED_IN_ERRORS = /^[!#-[\]-~]{1,64}$/;

/** The scope of a token request (RFC 9396 §2). What is not wholly understood is refused (§5). */
export const parseAuthorizationDetails = (text: string): Parsed<readonly Entry[]> => {
  const path = "authorization_details";
  const isTooLong = text.length > MAX_DETAILS_BYTES || new TextEncoder().encode(text).length > MAX_DETAILS_BYTES;
  if (isTooLong) return fault(path, `longer than ${MAX_DETAILS_BYTES} bytes`);
  const json = parseStrictJson(text);
  if (!json.ok) return fault(path, json.error);
  if (Array.isArray(json.value) && json.value.length === 0) return fault(path, "must not be empty");
  return parseEntries(json.value, path);
};

/** The entries of one layer. None is a layer that denies everything. */
export const parseEntries = (value: unknown, path: string): Parsed<readonly Entry[]> =>
  entriesBy(parseOperation, value, path);

/** The same of what was granted, or stands on record: what was in order once still is. */
export const readEntries = (value: unknown, path: string): Parsed<readonly Entry[]> =>
  entriesBy(readOperation, value, path);

type OperationParser = typeof parseOperation;

const entriesBy = (operationOf: OperationParser, value: unknown, path: string): Parsed<readonly Entry[]> => {
  if (!Array.isArray(value)) return fault(path, "must be an array");
  if (value.length > MAX_ENTRIES) return fault(path, `has more than ${MAX_ENTRIES} entries`);
  return parseEach(value, path, (one, onePath) => parseEntry(one, onePath, operationOf));
};

export const parseEntry = (
  value: unknown,
  path: string,
  operationOf: OperationParser = parseOperation,
): Parsed<Entry> => {
  if (!isObject(value)) return fault(path, "must be an object");
  const type = Object.hasOwn(value, "type") ? value.type : undefined;
  const parse = typeof type === "string" ? ENTRY_TYPES[type] : undefined;
  return parse === undefined ? fault(at(path, "type"), "must be a known type") : parse({ ...value }, path, operationOf);
};

const parseHttpEntry = (fields: Fields, path: string, operationOf: OperationParser): Parsed<Entry> => {
  const { type: _, upstream, operations, where, ...unknown } = fields;
  const [unknownField] = Object.keys(unknown);
  if (unknownField !== undefined) return fault(at(path, unknownField), "unknown field");
  if (typeof upstream !== "string" || !UPSTREAM.test(upstream)) {
    return fault(at(path, "upstream"), "must be the name of an upstream");
  }
  const parsedOperations = parseOperations(operations, at(path, "operations"), operationOf);
  if (!parsedOperations.ok) return parsedOperations;
  const conditions = Object.hasOwn(fields, "where") ? where : {};
  const parsedWhere = parseWhere(conditions, parsedOperations.value, at(path, "where"));
  if (!parsedWhere.ok) return parsedWhere;
  // Every field has been read as JSON by now.
  const source = fields as Entry["source"];
  return ok({ type: "http", upstream, operations: parsedOperations.value, where: parsedWhere.value, source });
};

/** A row per protocol. Null prototype: the type `constructor` is as unknown as any. */
const ENTRY_TYPES: { readonly [type: string]: typeof parseHttpEntry } = Object.assign(Object.create(null), {
  http: parseHttpEntry,
});

const parseOperations = (value: unknown, path: string, operationOf: OperationParser): Parsed<readonly Operation[]> => {
  if (!Array.isArray(value) || value.length === 0) return fault(path, "must be an array that is not empty");
  if (value.length > MAX_OPERATIONS) return fault(path, `has more than ${MAX_OPERATIONS} operations`);
  return parseEach(value, path, (text, textPath) => {
    if (typeof text !== "string") return fault(textPath, "must be a string");
    const operation = operationOf(text);
    return operation.ok ? operation : fault(textPath, operation.error);
  });
};

const parseWhere = (
  value: unknown,
  operations: readonly Operation[],
  path: string,
): Parsed<ReadonlyMap<string, Predicate>> => {
  if (!isObject(value)) return fault(path, "must be an object");
  const names = Object.keys(value);
  if (names.length > MAX_WHERE_FACTS) return fault(path, `has more than ${MAX_WHERE_FACTS} facts`);
  const where = new Map<string, Predicate>();
  for (const name of names) {
    const predicate = parsePredicate(value[name]);
    const problem = predicate.ok ? findMisuse(name, predicate.value, operations) : predicate.error;
    if (problem !== undefined) return fault(at(path, name), problem);
    if (predicate.ok) where.set(name, predicate.value);
  }
  return ok(where);
};

/** A condition that could never be evaluated, or never hold, is a mistake: better said now than denied later. */
const findMisuse = (name: string, predicate: Predicate, operations: readonly Operation[]): string | undefined => {
  const fact = parseFact(name);
  if (!fact.ok) return fact.error;
  if (fact.value.source === "body") return undefined;
  if (predicate.kind === "list" && predicate.items.some((item) => typeof item !== "string")) {
    return "facts of path and query are strings";
  }
  if (fact.value.source === "query") return undefined;
  if (predicate.kind === "absent") return "a path parameter is never absent";
  const isEverywhere = operations.every((operation) => parameterNames(operation).has(name));
  return isEverywhere ? undefined : "not a parameter of every operation";
};

const parseEach = <T>(
  values: readonly unknown[],
  path: string,
  parse: (value: unknown, path: string) => Parsed<T>,
): Parsed<readonly T[]> => {
  const parsed: T[] = [];
  for (const [index, value] of values.entries()) {
    const result = parse(value, `${path}[${index}]`);
    if (!result.ok) return result;
    parsed.push(result.value);
  }
  return ok(parsed);
};

/** A plain object: one written as `{ __proto__: … }` would hide a condition from its keys. */
const isObject = (value: unknown): value is Fields => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
};

const at = (path: string, name: string): string => `${path}.${NAMED_IN_ERRORS.test(name) ? name : "(unprintable)"}`;

const fault = (path: string, message: string): { readonly ok: false; readonly error: ScopeError } =>
  err({ path, message });
