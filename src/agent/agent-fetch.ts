import { encodeBase64url } from "../grant/base64url.ts";

/**
 * The agent's side: a `fetch` that calls the gate in the place of the SaaS. Runs wherever WebCrypto and fetch are
 * (Node 20, Deno, browsers, Workers). It signs a DPoP proof for each request (RFC 9449), and renews the grant ahead of
 * its expiry with the refresh token that is bound to its key. Give it to any client that takes a `fetch`.
 */
export interface InstanceKey {
  readonly privateKey: CryptoKey;
  readonly publicJwk: { readonly kty: "EC"; readonly crv: "P-256"; readonly x: string; readonly y: string };
}

/** What the token endpoint answered, as the platform hands it on. */
export interface GrantTokens {
  readonly access_token: string;
  readonly expires_in: number;
  readonly refresh_token?: string;
}

export interface AgentFetchOptions {
  /** The gate's origin, e.g. `https://gate.example.com`. */
  readonly gate: string;
  readonly key: InstanceKey;
  readonly grant: GrantTokens;
  /** For tests and unusual runtimes. */
  readonly fetch?: typeof globalThis.fetch;
}

/** Renewed when less than this is left, so that no call leaves with a grant that expires on the way. */
const RENEW_AHEAD_MS = 30_000;

/** A key pair whose private half can't be exported: it lives and dies with this process. */
export async function createInstanceKey(): Promise<InstanceKey> {
  const pair = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  const { x, y } = (await crypto.subtle.exportKey("jwk", pair.publicKey)) as { x: string; y: string };
  return { privateKey: pair.privateKey, publicJwk: { kty: "EC", crv: "P-256", x, y } };
}

/** The proof that a new instance gives to its platform, which presents it at the token endpoint (RFC 9449 §5). */
export const createEnrolmentProof = (gate: string, key: InstanceKey): Promise<string> =>
  createProof(key, "POST", `${originOf(gate)}/oauth/token`);

/** A `fetch` for requests to the gate. Requests to anywhere else are refused: they would go around it. */
export function createAgentFetch(options: AgentFetchOptions): typeof globalThis.fetch {
  const send = options.fetch ?? globalThis.fetch;
  const origin = originOf(options.gate);
  const { key } = options;
  let tokens = options.grant;
  let renewAtMs = renewalTime(tokens);
  let renewing: Promise<void> | undefined;

  async function renew(): Promise<void> {
    const endpoint = `${origin}/oauth/token`;
    const body = new URLSearchParams({ grant_type: "refresh_token", refresh_token: tokens.refresh_token! });
    const answer = await send(endpoint, {
      method: "POST",
      body,
      headers: { DPoP: await createProof(key, "POST", endpoint) },
    });
    if (answer.ok) {
      tokens = (await answer.json()) as GrantTokens;
      renewAtMs = renewalTime(tokens);
      return;
    }
    await answer.body?.cancel();
    // The gate being out of reach is worth another try with the next call; a refusal is for good.
    renewAtMs = answer.status === 503 ? Date.now() + 1_000 : Number.POSITIVE_INFINITY;
  }

  async function sendWithProof(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    headers.set("Authorization", `DPoP ${tokens.access_token}`);
    headers.set("DPoP", await createProof(key, request.method, request.url, tokens.access_token));
    return send(new Request(request, { headers, redirect: "manual" }));
  }

  return async (input, init) => {
    let request = new Request(input as RequestInfo, init as RequestInit);
    if (originOf(request.url) !== origin) throw new TypeError(`this fetch calls the gate ${origin} and nothing else`);
    if (Date.now() >= renewAtMs) {
      renewing ??= renew().finally(() => {
        renewing = undefined;
      });
      await renewing;
    }
    // Every hop of a redirect is a call of its own, with a proof of its own; only within the gate, and only where it is safe.
    for (let hop = 0; ; hop++) {
      const response = await sendWithProof(request);
      const next = hop < MAX_REDIRECTS ? followed(request, response, origin) : undefined;
      if (next === undefined) return response;
      await response.body?.cancel();
      request = next;
    }
  };
}

const MAX_REDIRECTS = 5;

function followed(request: Request, response: Response, origin: string): Request | undefined {
  const location = response.headers.get("Location");
  const isRedirect = [301, 302, 303, 307, 308].includes(response.status);
  const isSafe = request.method === "GET" || request.method === "HEAD";
  if (!isRedirect || !isSafe || location === null || request.redirect !== "follow") return undefined;
  const url = new URL(location, request.url);
  return url.origin === origin
    ? new Request(url, { method: request.method, headers: request.headers, signal: request.signal })
    : undefined;
}

const renewalTime = ({ expires_in, refresh_token }: GrantTokens): number =>
  refresh_token === undefined
    ? Number.POSITIVE_INFINITY
    : Date.now() + Math.max(expires_in * 1000 - RENEW_AHEAD_MS, expires_in * 500);

const originOf = (url: string): string => new URL(url).origin;

const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));

/** RFC 9449 §4.2. */
async function createProof(key: InstanceKey, method: string, url: string, accessToken?: string): Promise<string> {
  const target = new URL(url);
  const payload = {
    jti: encodeBase64url(crypto.getRandomValues(new Uint8Array(16))),
    htm: method,
    htu: target.origin + target.pathname,
    iat: Math.floor(Date.now() / 1000),
    ...(accessToken === undefined
      ? {}
      : { ath: encodeBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(accessToken)))) }),
  };
  const input = `${part({ typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk })}.${part(payload)}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key.privateKey, utf8.encode(input));
  return `${input}.${encodeBase64url(new Uint8Array(signature))}`;
}
