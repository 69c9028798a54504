import { defineConfig } from "../../src/config/define.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";
import { CREDENTIAL_ENTRIES, CREDENTIAL_UPSTREAMS } from "./credentials-config.ts";
import { rules, watched } from "./rules-config.ts";

/** The deployment that tests inside of workerd run against. Upstreams are reached through the run's outbound service. */
export const ORIGIN = "https://gate.test";

const ISSUES: ScopeEntry = {
  type: "http",
  upstream: "github",
  operations: [
    "GET /repos/{owner}/{repo}/issues",
    "GET /repos/{owner}/{repo}/contents/{+path}",
    "POST /repos/{owner}/{repo}/issues/{number}/comments",
    "PUT /repos/{owner}/{repo}/contents/{+path}",
  ],
  where: { owner: ["acme"] },
};

export default defineConfig({
  origin: ORIGIN,
  identityProviders: { corp: { issuer: "https://idp.test", jwksUri: "https://idp.test/jwks" } },
  platforms: {
    "build-platform": {
      agent: "triage-bot",
      identityProvider: "corp",
      subjectAudience: "build-platform-app",
      jwks: { keys: [{ kty: "EC", kid: "unused" }] },
    },
  },
  rules,
  agents: {
    ...watched({ versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } }, ceiling: [ISSUES] }),
    "triage-bot": {
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0", tools: {} } },
      ceiling: [ISSUES, ...CREDENTIAL_ENTRIES],
      limits: { callsPerSecond: 1_000, burst: 1_000, concurrency: 100, refusalsRecordedPerMinute: 5 },
    },
  },
  upstreams: {
    ...CREDENTIAL_UPSTREAMS,
    github: {
      baseUrl: "https://github.test",
      credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
    },
  },
  entitlements: { groups: { engineering: [ISSUES, ...CREDENTIAL_ENTRIES], nobody: [] } },
  boundaries: [ISSUES, ...CREDENTIAL_ENTRIES],
  admins: {
    identityProvider: "corp",
    audience: "portcullis-admin",
    roles: { viewer: ["security"], operator: ["security"], auditor: ["security"] },
  },
  transcripts: { flushAfterMs: 60_000 },
});
