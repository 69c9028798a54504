import { defineConfig } from "./src/config/define.ts";

/**
 * An example deployment. Put your own organisation here; `npm run check` and the start of the Worker say what is
 * wrong with it, by path. Secrets are named here and set with `wrangler secret put <NAME>`.
 */
export default defineConfig({
  origin: "https://gate.example.com",

  identityProviders: {
    corp: { issuer: "https://login.example.com", jwksUri: "https://login.example.com/jwks", groupsClaim: "groups" },
  },

  platforms: {
    "build-platform": {
      agent: "triage-bot",
      identityProvider: "corp",
      subjectAudience: "build-platform-app",
      jwks: {
        keys: [
          {
            kty: "EC",
            crv: "P-256",
            kid: "example",
            alg: "ES256",
            // A public key nobody holds the private half of: put your platform's own here.
            x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
          },
        ],
      },
    },
  },

  agents: {
    "triage-bot": {
      versions: {
        "1.0.0": { model: "example-model-1", promptDigest: "sha256:replace-me", tools: { octokit: "22.0.1" } },
      },
      ceiling: [
        {
          type: "http",
          upstream: "github",
          operations: [
            "GET /repos/{owner}/{repo}/contents/{+path}",
            "GET /repos/{owner}/{repo}/issues",
            "POST /repos/{owner}/{repo}/issues/{number}/comments",
          ],
          where: { owner: ["acme"] },
        },
      ],
      limits: { callsPerSecond: 5, burst: 20, concurrency: 4, calls: 2_000 },
    },
  },

  upstreams: {
    github: {
      baseUrl: "https://api.github.com",
      credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
    },
  },

  entitlements: {
    groups: {
      engineering: [
        {
          type: "http",
          upstream: "github",
          operations: [
            "GET /repos/{owner}/{repo}/contents/{+path}",
            "GET /repos/{owner}/{repo}/issues",
            "POST /repos/{owner}/{repo}/issues/{number}/comments",
          ],
          where: { owner: ["acme"], repo: ["widgets"] },
        },
      ],
    },
  },

  boundaries: [
    {
      type: "http",
      upstream: "github",
      operations: [
        "GET /repos/{owner}/{repo}/{+rest}",
        "GET /repos/{owner}/{repo}/issues",
        "POST /repos/{owner}/{repo}/issues/{number}/comments",
      ],
      where: { owner: ["acme"] },
    },
  ],

  admins: {
    identityProvider: "corp",
    audience: "portcullis-admin",
    roles: { viewer: ["security"], operator: ["security-oncall"], auditor: ["audit"] },
  },
});
