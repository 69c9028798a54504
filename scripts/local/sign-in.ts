// Signs a human in to a client of the local identity provider, from any process: the whole authorization-code flow with PKCE
// by a real relying party, the part of the browser played by a cookie jar.

import {
  allowInsecureRequests,
  authorizationCodeGrant,
  buildAuthorizationUrl,
  calculatePKCECodeChallenge,
  discovery,
  enableNonRepudiationChecks,
  None,
  randomNonce,
  randomPKCECodeVerifier,
  randomState,
} from "openid-client";
import type { Human, OidcClient } from "./humans.ts";
import { loopback } from "./ports.ts";

export const scope = "openid email groups";
const redirectLimit = 10;
/** Nobody listens there: the code is read from the redirect instead of following it. */
export const headlessRedirectUri = `http://${loopback}/signed-in`;

/** The human's ID token, issued to the client. */
export async function signInAt(issuer: string, human: Human, client: OidcClient): Promise<string> {
  const relyingParty = await discovery(
    new URL(issuer),
    client,
    { id_token_signed_response_alg: "ES256" },
    None(),
    { execute: [allowInsecureRequests, enableNonRepudiationChecks] }, // Plain HTTP, so the signature is checked as well.
  );
  const verifier = randomPKCECodeVerifier();
  const state = randomState();
  const nonce = randomNonce();
  const authorizationUrl = buildAuthorizationUrl(relyingParty, {
    redirect_uri: headlessRedirectUri,
    scope,
    login_hint: human,
    code_challenge: await calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
    nonce,
  });
  const tokens = await authorizationCodeGrant(relyingParty, await browseToRedirect(authorizationUrl), {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce,
    idTokenExpected: true,
  });
  if (tokens.id_token === undefined) throw new Error("the identity provider gave no ID token");
  return tokens.id_token;
}

/** Follows redirects with a cookie jar, as a browser that is used for this one sign-in, until it is sent back to the client. */
async function browseToRedirect(start: URL): Promise<URL> {
  const cookies = new Map<string, string>();
  let url = start;
  for (let hops = 0; hops < redirectLimit; hops += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, { redirect: "manual", headers: { cookie } });
    const location = response.headers.get("location");
    if (location === null)
      throw new Error(`sign-in stopped at ${url.pathname}: ${response.status} ${await response.text()}`);
    await response.body?.cancel();
    for (const line of response.headers.getSetCookie()) {
      const pair = line.slice(0, line.indexOf(";"));
      cookies.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    url = new URL(location, url);
    if (url.href.startsWith(headlessRedirectUri)) return url;
  }
  throw new Error(`sign-in went through ${redirectLimit} redirects without an end`);
}
