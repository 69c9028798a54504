import { defineConfig } from "../src/config/define.ts";
import type { ScopeEntry } from "../src/config/layers.ts";

/** One upstream, and limits that never bite. Addresses come with the bundle, as in scripts/local/config.ts. */
const bench = JSON.parse(process.env["BENCH"] ?? "{}") as {
  readonly origin: string;
  readonly upstream: string;
  /** Where admins sign in; nothing: nobody can. */
  readonly issuer?: string;
  readonly confirmationMs?: number;
  readonly shards?: number;
  readonly flushAfterMs?: number;
  /** Every call counts against a limit that all instances share. */
  readonly shared?: boolean;
};
const issuer = bench.issuer ?? "https://idp.invalid";

const ANY: ScopeEntry = {
  type: "http",
  upstream: "saas",
  operations: ["GET /v0/{base}/{table}", "POST /v0/{base}/{table}"],
  where: { base: ["appX1"] },
};

export default defineConfig({
  origin: bench.origin,
  identityProviders: { corp: { issuer, jwksUri: `${issuer}/jwks` } },
  platforms: {
    bench: {
      agent: "bench-bot",
      identityProvider: "corp",
      subjectAudience: "bench",
      jwks: { keys: [{ kty: "EC", kid: "none" }] },
    },
  },
  agents: {
    "bench-bot": {
      versions: { "1": { model: "none", promptDigest: "none" } },
      ceiling: [ANY],
      limits: { callsPerSecond: 1e6, burst: 1e6, concurrency: 1_000, calls: 1e9, bytes: 1e12 },
    },
  },
  upstreams: {
    saas: {
      baseUrl: bench.upstream,
      credential: { kind: "header", header: "Authorization", secret: "SAAS_TOKEN" },
      maxRequestBytes: 4_294_967_296,
      maxAnswerBytes: 4_294_967_296,
    },
  },
  quotas: bench.shared === true ? { all: { per: "everything", calls: 1_000_000_000, periodSeconds: 86_400 } } : {},
  entitlements: { groups: { bench: [ANY] } },
  boundaries: [ANY],
  admins: { identityProvider: "corp", audience: "admin", roles: { operator: ["oncall"], viewer: ["oncall"] } },
  grants: { grantSeconds: 3_600 },
  transcripts: bench.flushAfterMs === undefined ? {} : { flushAfterMs: bench.flushAfterMs },
  roster: {
    ...(bench.confirmationMs === undefined ? {} : { confirmationMs: bench.confirmationMs }),
    ...(bench.shards === undefined ? {} : { shards: bench.shards }),
  },
});
