// Signs a human in to a client of the local identity provider from another process than the provider's own: the
// authorization-code flow with PKCE (RFC 7636), the part of the browser played by a cookie jar.

import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import type { Human, OidcClient } from "./identity-provider.ts";
import { loopback } from "./ports.ts";

const redirectUri = `http://${loopback}/signed-in`; // Nobody listens there: the code is read from the redirect.
const redirectLimit = 10;
const tokens = z.object({ id_token: z.string() });

/** The human's ID token, issued to the client. The gate verifies it; this process only carries it there. */
export async function signInAt(issuer: string, human: Human, client: OidcClient): Promise<string> {
  const verifier = randomBytes(32).toString("base64url");
  const state = randomBytes(16).toString("base64url");
  const authorization = new URLSearchParams({
    client_id: client,
    response_type: "code",
    redirect_uri: redirectUri,
    scope: "openid email groups",
    login_hint: human,
    state,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  });
  const back = await browse(new URL(`${issuer}/auth?${authorization}`));
  const code = back.searchParams.get("code");
  if (code === null || back.searchParams.get("state") !== state)
    throw new Error("the sign-in came back without a code");
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code",
      client_id: client,
      redirect_uri: redirectUri,
      code,
      code_verifier: verifier,
    }),
  });
  if (!answer.ok) throw new Error(`the identity provider answered ${answer.status}: ${await answer.text()}`);
  return tokens.parse(await answer.json()).id_token;
}

async function browse(start: URL): Promise<URL> {
  const cookies = new Map<string, string>();
  let url = start;
  for (let hops = 0; hops < redirectLimit; hops++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, { redirect: "manual", headers: { cookie } });
    const location = response.headers.get("location");
    if (location === null) throw new Error(`the sign-in stopped with ${response.status}: ${await response.text()}`);
    await response.body?.cancel();
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (name !== undefined && value !== undefined) cookies.set(name, value);
    }
    url = new URL(location, url);
    if (url.href.startsWith(redirectUri)) return url;
  }
  throw new Error("the sign-in was sent from page to page without an end");
}
