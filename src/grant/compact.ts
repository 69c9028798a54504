import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { decodeBase64url } from "./base64url.ts";

/** A JWS in compact form (RFC 7515 §7.1) whose signature nobody has looked at yet. */
export interface UnverifiedJws {
  readonly token: string;
  readonly header: JsonObject;
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

/**
 * Takes a compact JWS apart. Refused: any text that is not the one canonical base64url spelling (so one token has
 * one text), JSON with duplicate keys, `crit` (no extension is understood), `b64` and nested headers.
 */
export function parseCompact(token: string, maxChars: number): Result<UnverifiedJws, string> {
  if (token.length > maxChars) return err("the token is too long");
  const parts = token.split(".");
  if (parts.length !== 3) return err("not a JWS in compact form");
  const [head, body, mac] = parts as [string, string, string];
  const headerBytes = decodeBase64url(head);
  const payloadBytes = decodeBase64url(body);
  const signature = decodeBase64url(mac);
  if (headerBytes === undefined || payloadBytes === undefined || signature === undefined)
    return err("not canonical base64url");
  if (headerBytes.length === 0 || payloadBytes.length === 0 || signature.length === 0) return err("an empty part");
  const header = parseStrictJsonBytes(headerBytes, { maxDepth: MAX_DEPTH });
  if (!header.ok) return err(`header: ${header.error}`);
  const payload = parseStrictJsonBytes(payloadBytes, { maxDepth: MAX_DEPTH });
  if (!payload.ok) return err(`payload: ${payload.error}`);
  if (!isObject(header.value) || !isObject(payload.value)) return err("header and payload must be objects");
  if ("crit" in header.value || "b64" in header.value) return err("an extension that is not understood (crit)");
  return ok({
    token,
    header: header.value,
    payload: payload.value,
    signature,
    signingInput: utf8.encode(token.slice(0, head.length + 1 + body.length)),
  });
}

/** `typ` compared as RFC 8725bis asks: a value without `/` stands for `application/…`, and case does not matter. */
export function hasType(header: JsonObject, type: string): boolean {
  const typ = header["typ"];
  return typeof typ === "string" && typ.toLowerCase().replace(/^application\//, "") === type;
}

/** A NumericDate (RFC 7519 §2) that is a whole number of seconds in the range of sane clocks. */
export const isSeconds = (value: Json | undefined): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value < 100_000_000_000;
