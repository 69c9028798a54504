import { err, ok, type Result } from "../result.ts";
import type { Json } from "./call.ts";

/** Values of one list. A list is scanned per call; 256 strings take below a microsecond. */
export const MAX_LIST_ITEMS = 256;

export type Scalar = null | boolean | number | string;

interface Fields {
  /** One of these, by type and value. */
  readonly list: { readonly items: readonly Scalar[] };
  readonly prefix: { readonly prefix: string };
  /** Both ends belong to it; an end that is not stated is -Infinity or Infinity. */
  readonly range: { readonly min: number; readonly max: number };
  /** UTF-16 code units of a string. */
  readonly maxLength: { readonly maxLength: number };
  readonly absent: object;
}
type Kind = keyof Fields;
type PredicateOf<K extends Kind> = { [P in K]: { readonly kind: P } & Fields[P] }[K];

export type Predicate = PredicateOf<Kind>;

interface Row<K extends Kind> {
  /** Whether a fact that is there satisfies it. A fact that it cannot speak of does not. */
  evaluate(predicate: PredicateOf<K>, fact: Json): boolean;
  /** Whether every fact that satisfies it satisfies `wider` too. False when unsure. */
  implies(predicate: PredicateOf<K>, wider: Predicate): boolean;
}

/** What a string must look like to be compared as a number: one spelling per value, but for trailing zeros. */
const DECIMAL = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/;
/** Decimals of 15 digits are distinct doubles (DBL_DIG). */
const MAX_DECIMAL_DIGITS = 15;

const ROWS: { readonly [K in Kind]: Row<K> } = Object.assign(Object.create(null), {
  list: {
    evaluate: ({ items }, fact) => items.some((item) => item === fact),
    implies: ({ items }, wider) => items.every((item) => evaluate(wider, item)),
  },
  prefix: {
    evaluate: ({ prefix }, fact) => typeof fact === "string" && fact.startsWith(prefix),
    implies: ({ prefix }, wider) => wider.kind === "prefix" && prefix.startsWith(wider.prefix),
  },
  range: {
    evaluate: ({ min, max }, fact) => {
      const number = numberOf(fact);
      return number !== undefined && number >= min && number <= max;
    },
    implies: ({ min, max }, wider) => wider.kind === "range" && min >= wider.min && max <= wider.max,
  },
  maxLength: {
    evaluate: ({ maxLength }, fact) => typeof fact === "string" && fact.length <= maxLength,
    implies: ({ maxLength }, wider) => wider.kind === "maxLength" && maxLength <= wider.maxLength,
  },
  absent: {
    evaluate: () => false,
    implies: (_, wider) => wider.kind === "absent",
  },
} satisfies { readonly [K in Kind]: Row<K> });

/** `undefined` is a fact that is absent: only `absent` holds for it. */
export const evaluate = <K extends Kind>(predicate: PredicateOf<K>, fact: Json | undefined): boolean => {
  if (fact === undefined) return predicate.kind === "absent";
  const row: Row<K> = ROWS[predicate.kind];
  return row.evaluate(predicate, fact);
};

/** INVARIANT: if true, no fact satisfies `narrower` and not `wider`. */
export const implies = <K extends Kind>(narrower: PredicateOf<K>, wider: Predicate): boolean => {
  const row: Row<K> = ROWS[narrower.kind];
  return row.implies(narrower, wider);
};

const numberOf = (fact: Json): number | undefined => {
  if (typeof fact === "number") return fact;
  if (typeof fact !== "string" || !DECIMAL.test(fact)) return undefined;
  return fact.replace(/[-.]/g, "").length <= MAX_DECIMAL_DIGITS ? Number(fact) : undefined;
};

type Spelling = { readonly [key: string]: unknown };

/** How a predicate that is an object is read, by any one of its keys. */
const PARSERS: { readonly [key: string]: (spelling: Spelling) => Result<Predicate, string> } = Object.assign(
  Object.create(null),
  {
    prefix: ({ prefix, ...others }) => {
      if (!isEmpty(others)) return err(ONE_KIND);
      if (typeof prefix !== "string" || prefix === "") return err("prefix must be a string that is not empty");
      return ok({ kind: "prefix", prefix });
    },
    min: (spelling) => parseRange(spelling),
    max: (spelling) => parseRange(spelling),
    maxLength: ({ maxLength, ...others }) => {
      if (!isEmpty(others)) return err(ONE_KIND);
      if (typeof maxLength !== "number" || !Number.isSafeInteger(maxLength) || maxLength < 0) {
        return err("maxLength must be an integer from 0");
      }
      return ok({ kind: "maxLength", maxLength });
    },
    absent: ({ absent, ...others }) => {
      if (!isEmpty(others)) return err(ONE_KIND);
      return absent === true ? ok({ kind: "absent" }) : err("absent must be true");
    },
  } satisfies { readonly [key: string]: (spelling: Spelling) => Result<Predicate, string> },
);

const ONE_KIND = "must be of one known kind";
const FINITE = "min and max must be finite numbers";

export const parsePredicate = (value: unknown): Result<Predicate, string> => {
  if (Array.isArray(value)) return parseList(value);
  if (typeof value !== "object" || value === null) return err("must be a list or an object");
  const [key] = Object.keys(value);
  const parse = key === undefined ? undefined : PARSERS[key];
  return parse === undefined ? err(ONE_KIND) : parse({ ...value });
};

const parseList = (values: readonly unknown[]): Result<Predicate, string> => {
  if (values.length === 0) return err("a list must not be empty");
  if (values.length > MAX_LIST_ITEMS) return err(`a list has more than ${MAX_LIST_ITEMS} values`);
  const items: Scalar[] = [];
  for (const item of values) {
    if (!isScalar(item)) return err("a list must hold strings, finite numbers, booleans or null");
    items.push(item);
  }
  return ok({ kind: "list", items });
};

const parseRange = (spelling: Spelling): Result<Predicate, string> => {
  const { min, max, ...others } = { min: -Infinity, max: Infinity, ...spelling };
  if (!isEmpty(others)) return err(ONE_KIND);
  if (typeof min !== "number" || (Object.hasOwn(spelling, "min") && !Number.isFinite(min))) return err(FINITE);
  if (typeof max !== "number" || (Object.hasOwn(spelling, "max") && !Number.isFinite(max))) return err(FINITE);
  if (min > max) return err("min is above max");
  return ok({ kind: "range", min, max });
};

const isEmpty = (spelling: object): boolean => Object.keys(spelling).length === 0;

const isScalar = (value: unknown): value is Scalar =>
  value === null || typeof value === "boolean" || typeof value === "string" || Number.isFinite(value);
