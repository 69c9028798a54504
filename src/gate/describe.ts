import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import type { BodyFacts, Call } from "../scope/call.ts";
import { decodeAgain, MORE_DECODINGS } from "../scope/decode-again.ts";
import { findParameterFault, isMethodOverride } from "./parameters.ts";
import type { Target } from "./target.ts";

/** What a request says before its body. */
export interface RequestHead {
  readonly target: Target;
  readonly method: string;
  readonly headers: Headers;
}

/** Of all rules for the upstream, the grant's and the ceilings': what they speak of. */
export interface RuleFacts {
  readonly query: boolean;
  /** Only then is the body read as JSON. */
  readonly body: boolean;
}

/** Frameworks take the method from these and would do another thing than the one that was authorized. */
const METHOD_OVERRIDES = ["x-http-method-override", "x-http-method", "x-method-override"];
/** Other names for the path, honoured by some servers. */
const PATH_OVERRIDES = ["x-original-url", "x-rewrite-url"];
/** RFC 9110 §7.6.1: what it names goes no further. The body would be read here by a type that the upstream never sees. */
const DROPS_CONTENT = /(?:^|,)\s*content-/i;

/** Pure. Turns a request's head into the facts that rules speak of, and refuses what two readers could read in two ways. */
export function describeHead(
  request: RequestHead,
  options: { readonly upstream: string; readonly encodedSlash: "data" | "refuse" },
): Result<Omit<Call, "body">, string> {
  if (!/^[A-Z]+$/.test(request.method)) return err("a method that is not upper-case letters");
  for (const name of [...METHOD_OVERRIDES, ...PATH_OVERRIDES])
    if (request.headers.has(name)) return err(`the header ${name}`);
  if (DROPS_CONTENT.test(request.headers.get("connection") ?? ""))
    return err("a Connection header that would drop a header of the body");
  const segments = describePath(request.target.rawRest, options.encodedSlash);
  if (!segments.ok) return segments;
  const query = describeQuery(request.target.rawQuery);
  if (!query.ok) return query;
  if (query.value.some(([name]) => isMethodOverride(name))) return err("a method override in the query");
  return ok({ upstream: options.upstream, method: request.method, segments: segments.value, query: query.value });
}

/**
 * Pure. The body is complete, or null where it is longer than what was read. What could hold a parameter that the
 * upstream takes for one of the query, or for the method, must be readable to the end.
 */
export function describeBody(
  { method, headers }: RequestHead,
  body: Uint8Array | null,
  rules: RuleFacts,
): Result<BodyFacts, string> {
  if (body?.length === 0) return ok({ kind: "none" });
  // No meaning is defined for it (RFC 9110 §9.3.1), so one reader drops what another acts on.
  if (method === "GET" || method === "HEAD") return err("a body with a method that has none");
  const fault = findParameterFault(method, headers, body, rules);
  if (fault !== undefined) return err(fault);
  return rules.body ? describeJson(headers, body) : ok({ kind: "opaque" });
}

/** Visible ASCII that a path may hold (RFC 3986 §3.3), with what lenient servers read as `/` taken out. */
const PATH_TEXT = /^(?:\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+$/;

export function describePath(rawRest: string, encodedSlash: "data" | "refuse"): Result<readonly string[], string> {
  if (!PATH_TEXT.test(rawRest)) return err("a character in the path that is ambiguous or not allowed");
  const raw = rawRest.slice(1).split("/");
  const segments: string[] = [];
  for (const [i, text] of raw.entries()) {
    if (text === "" && i < raw.length - 1) return err("an empty path segment");
    const segment = decodeOnce(text);
    if (segment === undefined) return err("a path that is not UTF-8");
    // Without its parameters there is nothing of it: then an item's path is its collection's.
    if (segment.startsWith(";")) return err("an empty path segment");
    if (hasControl(segment)) return err("a control character in the path");
    if (segment.includes("\\")) return err("a backslash in the path");
    if (segment.includes("/") && encodedSlash === "refuse") return err("an encoded slash");
    if (hidesDots(segment)) return err("a dot segment");
    segments.push(segment);
  }
  return ok(segments);
}

/** True where any reading of the segment, decoded again and again, split at slashes, without `;parameters`, is `.` or `..`. */
function hidesDots(segment: string): boolean {
  let text = segment;
  for (let round = 0; round <= MORE_DECODINGS; round++) {
    if (text.split(/[/\\]/).some((piece) => /^\.{1,2}(;|$)/.test(piece))) return true;
    const again = decodeAgain(text);
    if (again === text) return false;
    text = again;
  }
  return text.includes("%");
}

export function describeQuery(rawQuery: string): Result<readonly (readonly [string, string])[], string> {
  if (rawQuery === "") return ok([]);
  if (!/^\?[\x21-\x7e]*$/.test(rawQuery)) return err("a character in the query that is not allowed");
  const pairs: [string, string][] = [];
  for (const piece of rawQuery.slice(1).split("&")) {
    if (piece === "") continue;
    const cut = piece.indexOf("=");
    const name = decodeForm(cut === -1 ? piece : piece.slice(0, cut));
    const value = decodeForm(cut === -1 ? "" : piece.slice(cut + 1));
    if (name === undefined || value === undefined) return err("a query that is not UTF-8");
    if (hasControl(name)) return err("a control character in a query parameter's name");
    // Some servers also part parameters at ";": then `a=1;b=2` holds a `b` that no rule has seen.
    if (piece.includes(";")) return err("a semicolon in the query");
    pairs.push([name, value]);
  }
  return ok(pairs);
}

function describeJson(headers: Headers, body: Uint8Array | null): Result<BodyFacts, string> {
  // A rule speaks of the body: what can't be read without doubt is refused, not passed as opaque.
  if (body === null) return err("a body too long to be read for its rule");
  if (isCoded(headers)) return err("a coded body where a rule needs its facts");
  const type = headers.get("content-type")?.toLowerCase() ?? "";
  if (!/^application\/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset="?utf-8"?\s*)?$/.test(type))
    return err("a body that is not declared as JSON where a rule needs its facts");
  const json = parseStrictJsonBytes(body);
  return json.ok ? ok({ kind: "json", value: json.value }) : err(`the body: ${json.error}`);
}

const isCoded = (headers: Headers): boolean => {
  const coding = headers.get("content-encoding");
  return coding !== null && coding.toLowerCase() !== "identity";
};

function decodeOnce(text: string): string | undefined {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

const decodeForm = (text: string): string | undefined => decodeOnce(text.replaceAll("+", " "));

const hasControl = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x20 || code === 0x7f || (code >= 0x80 && code < 0xa0)) return true;
  }
  return false;
};
