// The organisation's identity provider: a real OpenID provider on loopback whose sign-in page believes whoever names a human.
// ID tokens come from a complete authorization-code flow with PKCE; nothing here mints one by hand.

import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import Provider, { type ClientMetadata, type Configuration, type KoaContextWithOIDC } from "oidc-provider";
import { type Human, humans, type OidcClient, oidcClients } from "./humans.ts";
import { createMemoryStorage } from "./identity-provider-storage.ts";
import { closeServer, listenOnLoopback, loopback } from "./ports.ts";
import type { Es256PrivateJwk } from "./secrets.ts";
import { headlessRedirectUri, scope, signInAt } from "./sign-in.ts";

export interface IdentityProvider {
  readonly issuer: string;
  readonly jwksUri: string;
  /** Signs the human in to the client as a browser would and gives the ID token. Each call is a session of its own. */
  signIn(human: Human, client: OidcClient): Promise<string>;
  close(): Promise<void>;
}

export interface IdentityProviderOptions {
  /** 0 or absent: any free port. */
  readonly port?: number;
  readonly signingKey: Es256PrivateJwk;
  /** Life of ID tokens; default an hour. */
  readonly idTokenSeconds?: number;
  /** Between two polls of a terminal that waits for its person (RFC 8628 §3.2); default: not said, which means five. */
  readonly devicePollSeconds?: number;
  /** Where `portcullis-admin` may send a browser back to, besides the headless sign-in. */
  readonly adminRedirectUris?: readonly string[];
}

const sessionSeconds = 3600;
const DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code";

/** Starts the provider on 127.0.0.1. */
export async function startIdentityProvider(options: IdentityProviderOptions): Promise<IdentityProvider> {
  // The issuer is part of the provider's configuration and names the port, so the socket comes first.
  let answer = (_request: IncomingMessage, response: ServerResponse): void => void response.writeHead(503).end();
  const server = createServer((request, response) => answer(request, response));
  const issuer = `http://${loopback}:${await listenOnLoopback(server, options.port ?? 0)}`;

  const provider = new Provider(issuer, configuration(options));
  const { devicePollSeconds: interval } = options;
  if (interval !== undefined)
    provider.on("device_authorization.success", (_ctx, response) => Object.assign(response, { interval }));
  const protocol = provider.callback();
  answer = (request, response) => {
    if (!request.url?.startsWith("/interaction/")) return void protocol(request, response);
    interact(provider, request, response).catch(() =>
      response.writeHead(400).end("This sign-in is over. Start again.\n"),
    );
  };
  return {
    issuer,
    jwksUri: `${issuer}/jwks`,
    signIn: (human, client) => signInAt(issuer, human, client),
    close: () => closeServer(server),
  };
}

function configuration({ signingKey, idTokenSeconds, adminRedirectUris }: IdentityProviderOptions): Configuration {
  return {
    adapter: createMemoryStorage(),
    jwks: { keys: [signingKey] },
    cookies: { keys: [randomBytes(32).toString("base64url")] },
    clients: oidcClients.map((id) => client(id, id === "portcullis-admin" ? (adminRedirectUris ?? []) : [])),
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    enabledJWA: { idTokenSigningAlgValues: ["ES256"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
    conformIdTokenClaims: false, // Subject tokens must name e-mail and groups themselves: nobody calls userinfo with them.
    scopes: ["openid", "email", "groups"],
    features: {
      devInteractions: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      deviceFlow: { enabled: true, ...devicePages },
    },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    ttl: {
      IdToken: idTokenSeconds ?? 3600,
      AccessToken: 300,
      AuthorizationCode: 60,
      DeviceCode: 600,
      Interaction: 600,
      Session: sessionSeconds,
      Grant: sessionSeconds,
    },
    findAccount: (_ctx, sub) => {
      const person = Object.values(humans).find((human) => human.sub === sub);
      if (!person) return undefined;
      const { email, groups } = person;
      return { accountId: sub, claims: () => ({ sub, email, email_verified: true, groups: [...groups] }) };
    },
    // The organisation has agreed to its own clients for everyone: no consent page.
    loadExistingGrant: async ({ oidc }) => {
      const { clientId } = oidc.client ?? {};
      const accountId = oidc.session?.accountId;
      if (!clientId || !accountId) return undefined;
      const grant = new oidc.provider.Grant({ clientId, accountId });
      grant.addOIDCScope(scope);
      await grant.save();
      return grant;
    },
    renderError: (ctx, out) => {
      ctx.type = "text/plain";
      ctx.body = `${out.error}: ${out.error_description ?? ""}\n`;
    },
  };
}

function client(id: OidcClient, redirectUris: readonly string[]): ClientMetadata {
  return {
    client_id: id,
    redirect_uris: [headlessRedirectUri, ...redirectUris],
    response_types: ["code"],
    // An admin's terminal has no browser (RFC 8628).
    grant_types: ["authorization_code", ...(id === "portcullis-admin" ? [DEVICE_GRANT] : [])],
    token_endpoint_auth_method: "none", // Public clients; PKCE is required of them.
  };
}

const page = (title: string, body: string): string => `<!doctype html><title>${title}</title><h1>${title}</h1>${body}`;

/** Where a person confirms a code that a terminal shows (RFC 8628 §3.3). The forms come from the provider, escaped. */
const devicePages = {
  userCodeInputSource: (ctx: KoaContextWithOIDC, form: string) => {
    ctx.body = page("Which code?", `${form}<button form="op.deviceInputForm">Continue</button>`);
  },
  userCodeConfirmSource: (
    ctx: KoaContextWithOIDC,
    form: string,
    _client: unknown,
    _deviceInfo: unknown,
    userCode: string,
  ) => {
    const buttons = `<button form="op.deviceConfirmForm">It is</button>
<button form="op.deviceConfirmForm" value="yes" name="abort">It is not</button>`;
    ctx.body = page("Is this the code?", `<p>${userCode}</p>${form}${buttons}`);
  },
  successSource: (ctx: KoaContextWithOIDC) => {
    ctx.body = page("Signed in", "<p>Go back to your terminal.</p>");
  },
};

// The sign-in page: `login_hint`, or a click on a name, is proof enough on loopback.
async function interact(provider: Provider, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { params, uid } = await provider.interactionDetails(request, response);
  const asked = new URL(request.url ?? "", provider.issuer).searchParams.get("as") ?? params["login_hint"];
  if (typeof asked === "string" && Object.hasOwn(humans, asked)) {
    const { sub: accountId } = humans[asked as Human];
    return provider.interactionFinished(request, response, { login: { accountId } });
  }
  const names = Object.entries(humans).map(
    ([id, { name }]) => `<p><a href="/interaction/${uid}?as=${id}">${name}</a></p>`,
  );
  response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
  response.end(page("Who are you?", names.join("")));
}
