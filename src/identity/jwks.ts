import { waitUntil } from "cloudflare:workers";
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import * as z from "zod";
import { parseStrictJson } from "../json/strict-json.ts";
import { readText } from "../read-text.ts";
import { fetchOutbound } from "../upstream/outbound.ts";

/** Keys are asked for again after this; while the provider is down the known ones serve up to `STALE_MS`. */
const FRESH_MS = 600_000;
const STALE_MS = 3_600_000;
/** A token with an unknown `kid` makes us ask again, at most this often: rotation works, a flood of bad tokens does not. */
const REFETCH_MS = 30_000;
/** While no key is known and the provider fails, it is asked again after this. */
const RETRY_MS = 1_000;
const FETCH_TIMEOUT_MS = 5_000;
const JWKS_MAX_BYTES = 262_144;
const JWKS_MAX_KEYS = 100;

const jwksShape = z.looseObject({ keys: z.array(z.looseObject({ kty: z.string() })).max(JWKS_MAX_KEYS) });

interface KnownKeys {
  readonly keys: JWTVerifyGetKey;
  readonly kids: ReadonlySet<string>;
  readonly fetchedAtMs: number;
}

const known = new Map<string, KnownKeys>();
/** When the provider was last asked, whatever came of it. */
const askedAtMs = new Map<string, number>();

/**
 * The keys of an identity provider. `undefined`: not to be had, and so nothing of that provider verifies.
 *
 * Requests never wait for each other's fetch: the runtime ends the I/O of a request whose client leaves, and whoever
 * waited for it would wait for good.
 */
export async function keysAt(jwksUri: string, kid: unknown, nowMs: number): Promise<JWTVerifyGetKey | undefined> {
  const cached = known.get(jwksUri);
  const age = cached === undefined ? Number.POSITIVE_INFINITY : nowMs - cached.fetchedAtMs;
  const hasKid = typeof kid !== "string" || cached?.kids.has(kid) === true;
  if (age < FRESH_MS && hasKid) return cached?.keys;
  const sinceAsked = nowMs - (askedAtMs.get(jwksUri) ?? Number.NEGATIVE_INFINITY);
  const usable = age < STALE_MS ? cached?.keys : undefined;
  if (sinceAsked < (usable === undefined ? RETRY_MS : REFETCH_MS)) return usable;
  // While nothing is known, requests ask side by side; the one that fails first makes the others pause.
  if (usable !== undefined) askedAtMs.set(jwksUri, nowMs);
  const fetching = fetchKeys(jwksUri, nowMs);
  // Once asked, the answer is kept, even if this request's client leaves.
  waitUntil(fetching);
  const fetched = await fetching;
  askedAtMs.set(jwksUri, nowMs);
  return fetched === undefined ? usable : fetched.keys;
}

async function fetchKeys(jwksUri: string, nowMs: number): Promise<KnownKeys | undefined> {
  try {
    const response = await fetchOutbound(jwksUri, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(FETCH_TIMEOUT_MS),
    });
    if (response.status !== 200) return undefined;
    const text = await readText(response, JWKS_MAX_BYTES);
    const json = text === undefined ? undefined : parseStrictJson(text);
    if (json === undefined || !json.ok) return undefined;
    const jwks = jwksShape.safeParse(json.value);
    if (!jwks.success) return undefined;
    const kids = new Set(jwks.data.keys.map((key) => key["kid"]).filter((kid) => typeof kid === "string"));
    const keys = { keys: createLocalJWKSet(jwks.data as JSONWebKeySet), kids, fetchedAtMs: nowMs };
    known.set(jwksUri, keys);
    return keys;
  } catch {
    return undefined;
  }
}
