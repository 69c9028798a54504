import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";

/** Containers open at once. Rules speak of a few levels; V8 parses any depth, later code that recurses does not. */
export const MAX_JSON_DEPTH = 64;

export interface JsonBounds {
  /** Containers open at once; a scalar has depth 0, `[]` has depth 1. */
  readonly maxDepth?: number;
}

// `ignoreBOM: true` leaves a byte order mark in the text, where the grammar refuses it (RFC 8259 §8.1).
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MINUS = 0x2d;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/**
 * JSON that every reader reads alike, or an error. The gate decides on its own reading and forwards the bytes as they
 * are, so whatever two parsers may read differently is refused: an object that names a key twice (RFC 8259 §4),
 * strings that are not Unicode (§8.2), numbers of a magnitude that a double cannot hold exactly (§6, RFC 7493 §2.2),
 * and `__proto__`, which some readers take for more than a name. Linear in the text. Errors never quote the text.
 */
export const parseStrictJson = (text: string, bounds: JsonBounds = {}): Result<Json, string> => {
  let value: Json;
  try {
    value = JSON.parse(text);
  } catch {
    return err("not JSON");
  }
  // A text that is well formed has a lone surrogate only where an escape makes one.
  if (!text.isWellFormed()) return err("a string is not Unicode");
  const problem = findAmbiguity(text, bounds.maxDepth ?? MAX_JSON_DEPTH);
  return problem === undefined ? ok(value) : err(problem);
};

/** The same for the bytes of a body: UTF-8 without a byte order mark. */
export const parseStrictJsonBytes = (bytes: Uint8Array, bounds: JsonBounds = {}): Result<Json, string> => {
  let text: string;
  try {
    text = UTF8.decode(bytes);
  } catch {
    return err("not UTF-8");
  }
  return parseStrictJson(text, bounds);
};

/** One pass over a text that is known to be JSON, so only tokens matter here and never the grammar. */
const findAmbiguity = (text: string, maxDepth: number): string | undefined => {
  /** The keys seen in each open object; arrays hold a place, for the depth. */
  const open: (Set<string> | undefined)[] = [];
  let at = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const end = endOfString(text, at);
      const problem = findStringProblem(text, at, end, open.at(-1));
      if (problem !== undefined) return `${problem} at offset ${at}`;
      at = end;
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (open.length >= maxDepth) return `nested deeper than ${maxDepth}`;
      open.push(code === OPEN_OBJECT ? new Set() : undefined);
      at += 1;
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      open.pop();
      at += 1;
    } else if (code === MINUS || isDigit(code)) {
      const end = endOfNumber(text, at);
      const number = Number(text.slice(at, end));
      // Past 2^53 two integers share one double, whatever their spelling; 1e400 is no double at all.
      if (!(Math.abs(number) <= Number.MAX_SAFE_INTEGER)) return `number out of range at offset ${at}`;
      at = end;
    } else {
      at += 1;
    }
  }
  return undefined;
};

const findStringProblem = (
  text: string,
  start: number,
  end: number,
  keys: Set<string> | undefined,
): string | undefined => {
  const raw = text.slice(start + 1, end - 1);
  const isEscaped = raw.includes("\\");
  // Keys are compared as they are meant: "a" and "\u0061" are one key.
  const string: string = isEscaped ? JSON.parse(text.slice(start, end)) : raw;
  if (isEscaped && !string.isWellFormed()) return "a string is not Unicode";
  if (keys === undefined || !isFollowedByColon(text, end)) return undefined;
  if (string === "__proto__") return "forbidden key";
  if (keys.has(string)) return "duplicate key";
  keys.add(string);
  return undefined;
};

/** In valid JSON a string before a colon is a key, and no other is. */
const isFollowedByColon = (text: string, from: number): boolean => {
  let at = from;
  while (text.charCodeAt(at) <= 0x20) at += 1;
  return text.charCodeAt(at) === COLON;
};

/** Behind the closing quote of the string that begins at `start`, in a text that is known to be JSON. */
export const endOfString = (text: string, start: number): number => {
  let quote = text.indexOf('"', start + 1);
  while (isEscapedAt(text, quote)) quote = text.indexOf('"', quote + 1);
  return quote + 1;
};

/** An odd number of backslashes before it. The string's opening quote ends every such run. */
const isEscapedAt = (text: string, quote: number): boolean => {
  let at = quote;
  while (text.charCodeAt(at - 1) === BACKSLASH) at -= 1;
  return (quote - at) % 2 === 1;
};

const endOfNumber = (text: string, start: number): number => {
  let at = start + 1;
  while (at < text.length && isNumberPart(text.charCodeAt(at))) at += 1;
  return at;
};

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39;

/** A digit, or one of `+ - . E e`. */
const isNumberPart = (code: number): boolean =>
  isDigit(code) || code === 0x2b || code === MINUS || code === 0x2e || code === 0x45 || code === 0x65;
