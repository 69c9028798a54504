// An upstream's authorization server: a real one (oidc-provider) that gives tokens for client credentials. It has no token exchange of
// its own, so that grant is added to it: the subject token is verified against the gate's published keys, as the RFC's server would.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createRemoteJWKSet, jwtVerify } from "jose";
import Provider from "oidc-provider";
import { closeServer, listenOnLoopback, loopback } from "../../scripts/local/ports.ts";
import { TOKEN_EXCHANGE } from "./harness.ts";

export interface AuthorizationServer {
  readonly issuer: string;
  readonly tokenEndpoint: string;
  /** Claims of each statement that it took a token for. */
  readonly subjects: readonly Readonly<Record<string, unknown>>[];
  /** All that it gave, oldest first. */
  readonly given: readonly string[];
  /** Whose statements it believes, once that one is up. */
  trust(gate: string): void;
  close(): Promise<void>;
}

export interface Clients {
  readonly basic: { readonly id: string; readonly secret: string };
  readonly keyed: { readonly id: string; readonly jwk: object };
}

export async function startAuthorizationServer({ basic, keyed }: Clients): Promise<AuthorizationServer> {
  let answer = (_request: IncomingMessage, response: ServerResponse): void => void response.writeHead(503).end();
  const server = createServer((request, response) => answer(request, response));
  const issuer = `http://${loopback}:${await listenOnLoopback(server, 0)}`;
  const client = { redirect_uris: [], response_types: [] };
  const provider = new Provider(issuer, {
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    clients: [
      { ...client, client_id: basic.id, client_secret: basic.secret, grant_types: ["client_credentials"] },
      {
        ...client,
        client_id: keyed.id,
        grant_types: [TOKEN_EXCHANGE],
        token_endpoint_auth_method: "private_key_jwt",
        token_endpoint_auth_signing_alg: "ES256",
        jwks: { keys: [keyed.jwk] },
      },
    ] as never,
  });
  const subjects: Record<string, unknown>[] = [];
  const given: string[] = [];
  let gate = "";
  const exchange = async (ctx: {
    body: unknown;
    status: number;
    oidc: { params: Record<string, string>; client: never };
  }) => {
    const keys = createRemoteJWKSet(new URL(`${gate}/.well-known/jwks.json`));
    const options = { issuer: gate, audience: issuer, typ: "portcullis-delegation+jwt", algorithms: ["Ed25519"] };
    try {
      const { payload } = await jwtVerify(ctx.oidc.params["subject_token"]!, keys, options);
      subjects.push(payload);
    } catch {
      ctx.status = 400;
      ctx.body = { error: "invalid_request" };
      return;
    }
    const token = new provider.ClientCredentials({ client: ctx.oidc.client });
    const type = "urn:ietf:params:oauth:token-type:access_token";
    ctx.body = { access_token: await token.save(), issued_token_type: type, token_type: "Bearer", expires_in: 600 };
  };
  const parameters = ["subject_token", "subject_token_type", "requested_token_type"];
  provider.registerGrantType(TOKEN_EXCHANGE, exchange as never, parameters);
  provider.on("client_credentials.saved" as never, ((token: { jti: string }) => given.push(token.jti)) as never);
  answer = provider.callback();
  return {
    issuer,
    tokenEndpoint: `${issuer}/token`,
    subjects,
    given,
    trust: (origin) => {
      gate = origin;
    },
    close: () => closeServer(server),
  };
}
