import type { ConfigSource } from "../../src/config/define.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";

/** An upstream for each kind of credential that is not a header. */
export const CREDENTIAL_UPSTREAMS: ConfigSource["upstreams"] = {
  keyed: { baseUrl: "https://keyed.test/v1", credential: { kind: "query", parameter: "key", secret: "QUERY_KEY" } },
  plain: { baseUrl: "https://plain.test", credential: { kind: "none" } },
  tokened: {
    baseUrl: "https://tokened.test",
    credential: {
      kind: "oauth-client-credentials",
      tokenEndpoint: "https://as.test/token",
      clientId: "gate:1",
      authentication: { method: "client_secret_basic", secret: "OAUTH_SECRET" },
      scope: "read write",
      resource: "https://tokened.test/",
    },
  },
  app: {
    baseUrl: "https://app.test",
    credential: {
      kind: "github-app",
      appId: "12345",
      installationId: 77,
      account: "Acme",
      privateKey: "APP_KEY",
      permissions: [
        { operations: ["GET /repos/{owner}/{repo}/issues"], permission: "issues", access: "read" },
        { operations: ["POST /repos/{owner}/{repo}/issues"], permission: "issues", access: "write" },
        { operations: ["GET /repos/{owner}/{repo}/contents/{+path}"], permission: "contents", access: "read" },
        { operations: ["GET /orgs/{org}/members"], permission: "members", access: "read" },
      ],
    },
  },
  exchange: {
    baseUrl: "https://exchange.test",
    credential: {
      kind: "token-exchange",
      tokenEndpoint: "https://as.test/exchange",
      clientId: "gate",
      authentication: { method: "private_key_jwt", secret: "CLIENT_KEY" },
      subjectAudience: "https://as.test",
      audience: "exchange-api",
    },
  },
};

export const CREDENTIAL_ENTRIES: readonly ScopeEntry[] = Object.keys(CREDENTIAL_UPSTREAMS).map((upstream) => ({
  type: "http",
  upstream,
  operations: ["GET /{+path}", "POST /{+path}"],
}));
