import type { RedactionRule } from "../config/redaction.ts";
import { findValues } from "../json/find-values.ts";
import { err, ok, type Result } from "../result.ts";
import { FIRST_RUN_BYTES } from "./first-run.ts";
import type { HeaderList } from "./headers.ts";

/** Pure: what rules leave of a body, a header list and a URL, and what they take out. */

export type Direction = "request" | "answer";

export interface TakenOut {
  readonly rule: string;
  readonly at: string;
  /** The value's source: of JSON with its quotes, of a query as it was encoded. */
  readonly value: Uint8Array;
}

export interface Redacted<T> {
  readonly recorded: T;
  readonly taken: readonly TakenOut[];
}

export const markerOf = (rule: string): string => `[redacted:${rule}]`;

/** A body is redacted whole or not at all; the recorded one, with its markers, is no longer either, and fits into a row. */
export const MAX_REDACTABLE_BYTES = FIRST_RUN_BYTES;
/** Each stands in the record with some 200 bytes, and a row holds 2 MB. */
export const MAX_VALUES = 1_000;
/** Of one URL. From the last on, all that follows is one value. */
const MAX_PARAMETERS = 64;

const utf8 = new TextEncoder();
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const isOfDirection = (rule: RedactionRule, direction: Direction): boolean =>
  rule.in === "both" || rule.in === direction;

export const fieldRules = (rules: readonly RedactionRule[], direction: Direction): readonly RedactionRule[] =>
  rules.filter((rule) => rule.fields !== undefined && isOfDirection(rule, direction));

/** Rules with fields. Everything but the values' own bytes stays as it was. An error: this body can't be redacted for certain. */
export function redactBody(
  rules: readonly RedactionRule[],
  body: Uint8Array,
  { mediaType, coding }: { readonly mediaType: string | null; readonly coding: string | null },
): Result<Redacted<Uint8Array>, string> {
  if (body.byteLength === 0) return ok({ recorded: body, taken: [] });
  if (body.byteLength > MAX_REDACTABLE_BYTES) return err(TOO_LONG);
  if (coding !== null && coding.toLowerCase() !== "identity") return err("a coded body");
  if (!isJson(mediaType)) return err("a body that is not declared as JSON");
  let text: string;
  try {
    text = strictUtf8.decode(body);
  } catch {
    return err("a body that is not UTF-8");
  }
  const patterns = rules.flatMap(({ name, fields = [] }) => fields.map(({ tokens }) => ({ rule: name, tokens })));
  const found = findValues(text, patterns, MAX_VALUES);
  if (!found.ok) return err(`the body: ${found.error}`);
  if (found.value.length === 0) return ok({ recorded: body, taken: [] });
  const taken: TakenOut[] = [];
  let recorded = "";
  let from = 0;
  for (const { pattern, at, start, end } of found.value) {
    recorded += `${text.slice(from, start)}"${markerOf(pattern.rule)}"`;
    taken.push({ rule: pattern.rule, at, value: utf8.encode(text.slice(start, end)) });
    from = end;
  }
  const bytes = utf8.encode(recorded + text.slice(from));
  return bytes.byteLength > MAX_REDACTABLE_BYTES ? err(TOO_LONG) : ok({ recorded: bytes, taken });
}

export const TOO_LONG = "a body too long to be redacted";

/** One media type, in UTF-8. Text that is JSON in all but its name may be anything to its reader. */
function isJson(mediaType: string | null): boolean {
  const [, parameters] = /^application\/(?:[a-z0-9.+_-]+\+)?json[ \t]*((?:;[^,]*)?)$/i.exec(mediaType ?? "") ?? [];
  if (parameters === undefined) return false;
  return [...parameters.matchAll(/charset[\s*]*=[\s"']*([^\s"';]*)/gi)].every(([, charset]) =>
    /^utf-?8$/i.test(charset!),
  );
}

/** They digest a body without a salt, and so confirm a guess of what was taken out of it. */
const DIGESTS = ["content-digest", "content-md5", "digest", "repr-digest"];
/** They hold URLs, and what a query said comes back in them. */
const WITH_URLS = new Set(["referer", "location", "content-location", "link", "refresh"]);

export function redactHeaders(
  rules: readonly RedactionRule[],
  headers: HeaderList,
  direction: Direction,
): Redacted<HeaderList> {
  const named = new Map<string, string>();
  const [first] = fieldRules(rules, direction);
  if (first !== undefined) for (const name of DIGESTS) named.set(name, first.name);
  for (const rule of rules.filter((rule) => isOfDirection(rule, direction)))
    for (const name of rule.headers ?? []) if (!named.has(name)) named.set(name, rule.name);
  const taken: TakenOut[] = [];
  const recorded = headers.map(([name, value]): HeaderList[number] => {
    const rule = named.get(name);
    if (rule !== undefined) {
      taken.push({ rule, at: `header:${name}`, value: utf8.encode(value) });
      return [name, markerOf(rule)];
    }
    if (!WITH_URLS.has(name)) return [name, value];
    const url = redactQuery(rules, value, `header:${name}?`);
    taken.push(...url.taken);
    return [name, url.recorded];
  });
  return { recorded, taken };
}

/** Parameters in a text that holds a URL, or several. `place` goes before their names. */
export function redactQuery(rules: readonly RedactionRule[], text: string, place = "query:"): Redacted<string> {
  const names = new Map<string, { readonly rule: string; readonly name: string }>();
  for (const { name: rule, query = [] } of rules)
    for (const name of query) names.set(canonicalName(encodeURIComponent(name)), { rule, name });
  const taken: TakenOut[] = [];
  if (names.size === 0) return { recorded: text, taken };
  // A parameter begins behind whatever some reader takes for its beginning, and ends where all of them agree.
  const begins = /[?&;#]([^=&?#;]+)=/g;
  const ends = place === "header:link?" ? /[&#>]|$/g : /[&#]|$/g;
  let recorded = "";
  let from = 0;
  for (let match = begins.exec(text); match !== null; match = begins.exec(text)) {
    const named = findName(names, match[1]!);
    if (named === undefined) {
      // What looks like its value may hold another URL; what separates may also begin the next one.
      begins.lastIndex--;
      continue;
    }
    const start = begins.lastIndex;
    ends.lastIndex = start;
    const end = taken.length === MAX_PARAMETERS - 1 ? text.length : (ends.exec(text)?.index ?? text.length);
    recorded += text.slice(from, start) + markerOf(named.rule);
    taken.push({ rule: named.rule, at: place + named.name, value: utf8.encode(text.slice(start, end)) });
    from = end;
    begins.lastIndex = end;
  }
  return { recorded: recorded + text.slice(from), taken };
}

/** `Token`, `%74oken` and `token[]` are `token` to some reader. */
function findName<T>(names: ReadonlyMap<string, T>, encoded: string): T | undefined {
  const name = canonicalName(encoded);
  let bracket = 0;
  for (let depth = 0; depth < MAX_BRACKETS; depth++) {
    bracket = name.indexOf("[", bracket + 1);
    const named = names.get(bracket === -1 ? name : name.slice(0, bracket));
    if (named !== undefined || bracket === -1) return named;
  }
  return names.get(name);
}

/** A name may itself have brackets; nobody's has more. */
const MAX_BRACKETS = 8;

const canonicalName = (encoded: string): string =>
  encoded
    .replaceAll("+", " ")
    .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    // To PHP `a.b` and `a b` are `a_b`, and to Protocol Buffers' JSON `a_b` is `aB`.
    .replace(/[._ ]/g, "")
    .toLowerCase();
