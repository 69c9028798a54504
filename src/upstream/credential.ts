import { createHash } from "node:crypto";
import type { UpstreamConfig } from "../config/define.ts";
import type { Deployment } from "../deployment.ts";
import type { DelegationFacts } from "../instance/contract.ts";
import { brokerOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { Entry } from "../scope/entry.ts";
import { within } from "../within.ts";
import { notNarrowed } from "./call-fault.ts";
import type { AskedCall, Narrowing, TokenSource } from "./credential-kind.ts";
import { kindOf } from "./credentials/table.ts";
import { heldToken, holdToken, rejectedToken, rejectToken } from "./held-tokens.ts";
import type { Needles } from "./needles.ts";
import { needlesOf, type Place, placeCredential } from "./placing.ts";
import { readSecret } from "./read-secret.ts";
import type { Secret } from "./secret.ts";
import { TOKEN_TIMEOUT_MS } from "./token-endpoint.ts";

/** The broker waits for the token endpoint, and then has this long for its answer. */
const BROKER_TIMEOUT_MS = TOKEN_TIMEOUT_MS + 2_000;

/** What a permitted call is to be sent with, as far as that is known before it is admitted. */
export interface CredentialPlan {
  readonly upstream: string;
  readonly config: UpstreamConfig;
  /** Null: nothing is fetched for it. */
  readonly token: { readonly narrowing: Narrowing; readonly digest: string } | null;
}

/** In hand, for one call. */
export interface Credential {
  /** By what an echo is known; null: nothing was sent that could come back. */
  readonly needles: Needles | null;
  /** Puts it into the headers, or gives back the URL that holds it: for the request that leaves, and nothing else. */
  place(url: string, headers: Headers): string;
  /** The upstream answered 401: the next call gets another, where there can be another. */
  reject(): void;
}

/** Pure. An error says, for the record, why this grant or this call can't have the credential. */
export function planCredential(
  upstream: string,
  config: UpstreamConfig,
  asked: AskedCall,
): Result<CredentialPlan, string> {
  const kind = kindOf(config.credential);
  const token = kind.source?.kind === "token" ? narrowed(kind.source, upstream, config, asked.entries) : ok(null);
  if (!token.ok) return err(notNarrowed(token.error));
  const fault = kind.findFault?.(config.credential, asked);
  return fault === undefined ? ok({ upstream, config, token: token.value }) : err(fault);
}

type Narrowed = Result<NonNullable<CredentialPlan["token"]>, string>;
/** A grant's entries are the same object as long as its token is remembered. */
const narrowings = new WeakMap<UpstreamConfig, WeakMap<readonly Entry[], Narrowed>>();

function narrowed(
  source: TokenSource<UpstreamConfig["credential"]>,
  upstream: string,
  config: UpstreamConfig,
  entries: readonly Entry[],
): Narrowed {
  const known = narrowings.get(config) ?? new WeakMap<readonly Entry[], Narrowed>();
  narrowings.set(config, known);
  let made = known.get(entries);
  if (made === undefined) {
    const narrowing = source.narrow(config.credential, upstream, entries);
    made = narrowing.ok ? ok({ narrowing: narrowing.value, digest: digestOf(narrowing.value) }) : narrowing;
    known.set(entries, made);
  }
  return made;
}

/** After admission: the secret, or a token from this isolate or from its broker. An error is for the record, and says nothing of either. */
export async function takeCredential(
  { upstream, config, token }: CredentialPlan,
  deployment: Deployment,
  delegation: DelegationFacts | null,
): Promise<Result<Credential, string>> {
  const nowMs = Date.now();
  const kind = kindOf(config.credential);
  const place = kind.place(config.credential);
  if (kind.source === null || place === null) return ok(NO_CREDENTIAL);
  if (kind.source.kind === "secret") {
    const name = kind.source.secret(config.credential);
    const secret = await readSecret(deployment.env, { name, form: "sent" }, nowMs);
    return secret.ok ? ok(inHand(place, secret.value, () => {})) : secret;
  }
  if (token === null) return err("no token was planned for");
  const own = kind.source.isOfInstance ? delegation : null;
  if (kind.source.isOfInstance && own === null) return err("nobody stated who acts");
  const name = `${upstream}.${own === null ? token.digest : digestOf([token.narrowing, own])}`;
  const known = heldToken(name, nowMs) ?? (await askBroker(name, { upstream, token, own }, deployment));
  if ("reason" in known) return err(known.reason);
  return ok(inHand(place, known.token, () => rejectToken(name, known.id)));
}

async function askBroker(
  name: string,
  wanted: { upstream: string; token: { narrowing: Narrowing }; own: DelegationFacts | null },
  deployment: Deployment,
): Promise<ReturnType<typeof holdToken> | { readonly reason: string }> {
  try {
    const asked = brokerOf(deployment, name).token({
      upstream: wanted.upstream,
      narrowing: wanted.token.narrowing,
      delegation: wanted.own,
      rejected: rejectedToken(name),
    });
    const answer = await within(BROKER_TIMEOUT_MS, asked);
    if (answer === undefined) return { reason: "the broker did not answer" };
    return answer.given ? holdToken(name, answer, Date.now()) : { reason: answer.reason };
  } catch {
    return { reason: "the broker could not be reached" };
  }
}

const NO_CREDENTIAL: Credential = { needles: null, place: (url) => url, reject: () => {} };

const inHand = (place: Place, secret: Secret, reject: () => void): Credential => ({
  needles: needlesOf(secret),
  place: (url, headers) => placeCredential(place, secret, url, headers),
  reject,
});

const digestOf = (value: unknown): string => createHash("sha256").update(JSON.stringify(value)).digest("base64url");
