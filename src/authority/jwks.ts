import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import { z } from "zod";
import { parseStrictJson } from "../json/strict-json.ts";
import { fetchOutbound } from "../upstream/outbound.ts";
import { readText } from "./form.ts";

/** Keys are asked for again after this; while the provider is down the known ones serve up to `STALE_MS`. */
const FRESH_MS = 600_000;
const STALE_MS = 3_600_000;
/** A token with an unknown `kid` makes us ask again, at most this often: rotation works, a flood of bad tokens does not. */
const REFETCH_MS = 30_000;
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
const asking = new Map<string, Promise<KnownKeys | undefined>>();

/** The keys of an identity provider. `undefined`: not to be had, and so nothing of that provider verifies. */
export async function keysAt(jwksUri: string, kid: unknown, nowMs: number): Promise<JWTVerifyGetKey | undefined> {
  const cached = known.get(jwksUri);
  const age = cached === undefined ? Number.POSITIVE_INFINITY : nowMs - cached.fetchedAtMs;
  const hasKid = typeof kid !== "string" || cached?.kids.has(kid) === true;
  if (cached !== undefined && age < FRESH_MS && (hasKid || age < REFETCH_MS)) return cached.keys;
  const fetched = await fetchOnce(jwksUri, nowMs);
  if (fetched !== undefined) return fetched.keys;
  return cached !== undefined && age < STALE_MS ? cached.keys : undefined;
}

function fetchOnce(jwksUri: string, nowMs: number): Promise<KnownKeys | undefined> {
  const running = asking.get(jwksUri);
  if (running !== undefined) return running;
  const fetching = fetchKeys(jwksUri, nowMs).finally(() => asking.delete(jwksUri));
  asking.set(jwksUri, fetching);
  return fetching;
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
