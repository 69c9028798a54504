import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { decodeBase64url } from "./base64url.ts";

/** A JWS in compact form (RFC 7515 §7.1) whose signature nobody has looked at yet. */
export interface UnverifiedJws extends UnverifiedBody {
  readonly header: JsonObject;
}

/** All of it but the header. */
export interface UnverifiedBody {
  readonly token: string;
  readonly payload: JsonObject;
  readonly signature: Uint8Array;
  /** The bytes that were signed. */
  readonly signingInput: Uint8Array;
}

export type JsonObject = { readonly [key: string]: Json };

/** Depth of a JOSE header or a claims set; a grant's `authorization_details` is the deepest. */
const MAX_DEPTH = 16;

const isObject = (value: Json): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const utf8 = new TextEncoder();

/** The three parts of a compact JWS as text, nothing of them decoded. */
export interface CompactParts {
  readonly token: string;
  readonly header: string;
  readonly payload: string;
  readonly signature: string;
}

export function splitCompact(token: string, maxChars: number): Result<CompactParts, string> {
  if (token.length > maxChars) return err("the token is too long");
  const parts = token.split(".");
  if (parts.length !== 3) return err("not a JWS in compact form");
  const [header, payload, signature] = parts as [string, string, string];
  return ok({ token, header, payload, signature });
}

/** Refused with the rest: `crit` and `b64`, because no extension is understood. */
export function parseHeader(text: string): Result<JsonObject, string> {
  const header = parsePart(text, "header");
  if (header.ok && ("crit" in header.value || "b64" in header.value))
    return err("an extension that is not understood (crit)");
  return header;
}

/** The rest of a token whose header was read. */
export function parseBody(parts: CompactParts): Result<UnverifiedBody, string> {
  const payload = parsePart(parts.payload, "payload");
  if (!payload.ok) return payload;
  const signature = decodeBase64url(parts.signature);
  if (signature === undefined) return err("not canonical base64url");
  if (signature.length === 0) return err("an empty part");
  return ok({
    token: parts.token,
    payload: payload.value,
    signature,
    signingInput: utf8.encode(parts.token.slice(0, parts.header.length + 1 + parts.payload.length)),
  });
}

/**
 * Takes a compact JWS apart. Refused: any text that is not the one canonical base64url spelling (so one token has
 * one text), JSON with duplicate keys, nested beyond measure, or not an object.
 */
export function parseCompact(token: string, maxChars: number): Result<UnverifiedJws, string> {
  const parts = splitCompact(token, maxChars);
  if (!parts.ok) return parts;
  const header = parseHeader(parts.value.header);
  if (!header.ok) return header;
  const body = parseBody(parts.value);
  return body.ok ? ok({ header: header.value, ...body.value }) : body;
}

function parsePart(text: string, name: string): Result<JsonObject, string> {
  const bytes = decodeBase64url(text);
  if (bytes === undefined) return err("not canonical base64url");
  if (bytes.length === 0) return err("an empty part");
  const json = parseStrictJsonBytes(bytes, { maxDepth: MAX_DEPTH });
  if (!json.ok) return err(`${name}: ${json.error}`);
  return isObject(json.value) ? ok(json.value) : err("header and payload must be objects");
}

/** `typ` compared as RFC 8725bis asks: a value without `/` stands for `application/…`, and case does not matter. */
export function hasType(header: JsonObject, type: string): boolean {
  const typ = header["typ"];
  return typeof typ === "string" && typ.toLowerCase().replace(/^application\//, "") === type;
}

/** A NumericDate (RFC 7519 §2) that is a whole number of seconds in the range of sane clocks. */
export const isSeconds = (value: Json | undefined): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value < 100_000_000_000;
