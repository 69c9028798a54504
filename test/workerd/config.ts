import { defineConfig } from "../../src/config/define.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";
import { heldBack, WEBHOOK } from "./approval-config.ts";
import { CREDENTIAL_ENTRIES, CREDENTIAL_UPSTREAMS } from "./credentials-config.ts";
import { modelCalls, modelUpstream, quotas, spenders } from "./quotas-config.ts";
import { rules, watched } from "./rules-config.ts";
import { wholeCalls, wholeHeldBack, wholeUpstream } from "./whole-config.ts";

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
    ...watched({
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } },
      ceiling: [ISSUES],
      delegation: { agents: ["summariser"] },
    }),
    lead: {
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } },
      ceiling: [ISSUES],
      limits: { callsPerSecond: 1_000, burst: 1_000, concurrency: 200, calls: 10_000, units: { usd: 500 } },
      delegation: { agents: ["lead", "clerk", "summariser"], depth: 3, breadth: 100, total: 120 },
    },
    chief: {
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } },
      ceiling: [{ ...ISSUES, operations: ["GET /repos/{owner}/{repo}/issues"] }],
      delegation: { agents: ["summariser", "lead"] },
    },
    clerk: {
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } },
      ceiling: [ISSUES],
      delegation: { agents: ["clerk", "summariser"], depth: 1, breadth: 2, total: 3 },
    },
    summariser: {
      versions: { "2.0.0": { model: "s", promptDigest: "sha256:1" } },
      ceiling: [{ ...ISSUES, operations: ["GET /repos/{owner}/{repo}/issues"] }],
      limits: { calls: 500 },
    },
    ...spenders([ISSUES, modelCalls]),
    "triage-bot": {
      versions: { "1.0.0": { model: "m", promptDigest: "sha256:0", tools: {} } },
      ceiling: [ISSUES, ...CREDENTIAL_ENTRIES, wholeCalls],
      limits: { callsPerSecond: 1_000, burst: 1_000, concurrency: 100, refusalsRecordedPerMinute: 5 },
    },
  },
  upstreams: {
    ...CREDENTIAL_UPSTREAMS,
    github: {
      baseUrl: "https://github.test",
      credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
    },
    model: modelUpstream,
    whole: wholeUpstream,
  },
  entitlements: {
    groups: {
      engineering: [ISSUES, modelCalls, ...CREDENTIAL_ENTRIES, wholeCalls],
      nobody: [],
      readers: [{ ...ISSUES, operations: [ISSUES.operations[0]!] }],
    },
    humans: { "Named@acme.example": [ISSUES] },
  },
  boundaries: [ISSUES, ...heldBack, modelCalls, ...CREDENTIAL_ENTRIES, wholeCalls, wholeHeldBack],
  approvals: { webhook: { url: WEBHOOK, secret: "APPROVALS_WEBHOOK" } },
  quotas,
  admins: {
    identityProvider: "corp",
    audience: "portcullis-admin",
    roles: { viewer: ["security"], operator: ["security"], auditor: ["security"], approver: ["approvers"] },
  },
  mandates: { identityProvider: "corp", audience: "portcullis-mandates", mostStanding: 20 },
  transcripts: { flushAfterMs: 60_000 },
});
