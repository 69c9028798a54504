import { createHeldGrant, type HeldGrantOptions } from "./held-grant.ts";

export {
  type Delegated,
  delegate,
  endChild,
  requestSubAgentGrant,
  type SubAgentOptions,
  SubAgentRefused,
  type SubAgentRequest,
} from "./delegate.ts";
// The package's export `portcullis/agent`.
export { createHeldGrant, type GrantTokens, type HeldGrant, type Renewal } from "./held-grant.ts";
export { createEnrolmentProof, createInstanceKey, type InstanceKey, thumbprintOf } from "./instance-key.ts";

/**
 * The agent's side: a `fetch` that calls the gate in the place of the SaaS. Runs wherever WebCrypto and fetch are
 * (Node 20, Deno, browsers, Workers). It signs a DPoP proof for each request (RFC 9449), and renews the grant ahead of
 * its expiry with the refresh token that is bound to its key. Give it to any client that takes a `fetch`.
 */
export type AgentFetchOptions = HeldGrantOptions;

/** A `fetch` for requests to the gate. Requests to anywhere else are refused: they would go around it. */
export function createAgentFetch(options: AgentFetchOptions): typeof globalThis.fetch {
  const send = options.fetch ?? globalThis.fetch;
  const grant = createHeldGrant(options);
  const { origin } = grant;

  async function sendWithProof(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    const shown = await grant.authorize(request.method, request.url);
    headers.set("Authorization", shown.Authorization);
    headers.set("DPoP", shown.DPoP);
    return send(new Request(request, { headers, redirect: "manual" }));
  }

  return async (input, init) => {
    let request = new Request(input as RequestInfo, init as RequestInit);
    if (new URL(request.url).origin !== origin)
      throw new TypeError(`this fetch calls the gate ${origin} and nothing else`);
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
