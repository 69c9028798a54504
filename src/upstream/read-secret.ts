import { parseWebhookSecret } from "../approval/webhook.ts";
import type { SecretUse } from "../config/credential.ts";
import { err, ok, type Result } from "../result.ts";
import { within } from "../within.ts";
import { Secret } from "./secret.ts";

/**
 * What is sent to an upstream is looked for in its answers. Text of this length is not met by chance; a shorter one
 * would be a credential whose echo can't be told from data, and is refused.
 */
export const SENT_MIN_CHARS = 16;

/** Secrets Store bindings are asked again after this, so that a rotation there needs no deployment. */
const STORE_FRESH_MS = 300_000;
const STORE_TIMEOUT_MS = 5_000;

/** A Worker secret is text. A Secrets Store binding gives it when asked. */
interface StoreBinding {
  get(): Promise<string>;
}
type Bindings = { readonly [name: string]: unknown };

const isStoreBinding = (value: unknown): value is StoreBinding =>
  typeof value === "object" && value !== null && "get" in value && typeof value.get === "function";

/** At start. Throws with the name where it is missing or can't be what it should be. Of a store, that there is a binding is all that is known. */
export function requireSecret(env: Bindings, use: SecretUse): void {
  const value = env[use.name];
  if (isStoreBinding(value)) return;
  if (typeof value !== "string" || value === "") throw new Error(`secret ${use.name} is not set`);
  const fault = faultOf(value, use);
  if (fault !== undefined) throw new Error(`secret ${use.name} ${fault}`);
}

/** Never says anything of the value. */
function faultOf(value: string, { form }: SecretUse): string | undefined {
  switch (form) {
    case "any":
      return undefined;
    case "sent":
      if (!/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(value)) return "is not one line of visible ASCII";
      return value.length < SENT_MIN_CHARS
        ? `is shorter than ${SENT_MIN_CHARS} characters: its echo in an answer could not be told from chance`
        : undefined;
    case "pem":
      return /^\s*-----BEGIN PRIVATE KEY-----\s[\s\S]+-----END PRIVATE KEY-----\s*$/.test(value)
        ? undefined
        : "is not a private key in PKCS#8 PEM (openssl pkcs8 -topk8 -nocrypt makes one of GitHub's)";
    case "webhook": {
      const keys = parseWebhookSecret(value);
      return keys.ok ? undefined : keys.error;
    }
    case "jwk":
      return isPrivateJwk(value) ? undefined : "is not a private JWK with alg and kid";
  }
}

function isPrivateJwk(text: string): boolean {
  try {
    const jwk = JSON.parse(text) as Record<string, unknown>;
    return ["kty", "alg", "kid", "d"].every((name) => typeof jwk[name] === "string");
  } catch {
    return false;
  }
}

/** By name and form: what one use takes may be no secret for another. */
const known = new Map<string, { readonly secret: Secret; readonly readAtMs: number }>();

const keyOf = ({ name, form }: SecretUse): string => `${form} ${name}`;

/** The same object for the same text, so that what is derived from it is derived once. An error never says anything of the value. */
export async function readSecret(env: Bindings, use: SecretUse, nowMs: number): Promise<Result<Secret, string>> {
  const cached = known.get(keyOf(use));
  const value = env[use.name];
  if (typeof value === "string") return remember(use, value, cached?.secret, nowMs);
  if (!isStoreBinding(value)) return err(`secret ${use.name} is not set`);
  if (cached !== undefined && nowMs - cached.readAtMs < STORE_FRESH_MS) return ok(cached.secret);
  try {
    const text = await within(STORE_TIMEOUT_MS, value.get());
    if (typeof text === "string" && text !== "") return remember(use, text, cached?.secret, nowMs);
  } catch {
    // Whatever it says: without it there is no credential.
  }
  return err(`secret ${use.name} could not be read`);
}

function remember(use: SecretUse, value: string, cached: Secret | undefined, nowMs: number): Result<Secret, string> {
  const isKnown = cached?.is(value) === true;
  const fault = isKnown ? undefined : faultOf(value, use);
  if (fault !== undefined) return err(`secret ${use.name} ${fault}`);
  const secret = isKnown && cached !== undefined ? cached : new Secret(value);
  known.set(keyOf(use), { secret, readAtMs: nowMs });
  return ok(secret);
}
