import { type ConfigSource, defineConfig } from "../../src/config/define.ts";
import type { BoundarySource, ScopeEntry } from "../../src/config/layers.ts";
import type { RuleSource } from "../../src/config/rules.ts";

/**
 * The organisation of `npm start` and of the system tests. Where things listen is decided when the bundle is made:
 * `process.env.LOCAL` is replaced by what `startGate` was given.
 */
const local = JSON.parse(process.env["LOCAL"] ?? "{}") as LocalAddresses;

export interface LocalAddresses {
  readonly origin: string;
  readonly issuer: string;
  readonly jwksUri: string;
  readonly github: string;
  readonly slack: string;
  readonly model: string;
  readonly platformKey: { readonly kty: string; readonly kid: string; readonly [member: string]: string };
  /** A second platform, whose own client at the identity provider is `other-app`. For tests of what belongs to whom. */
  readonly otherPlatformKey?: { readonly kty: string; readonly kid: string; readonly [member: string]: string };
  /** Another agent than `triage-bot`, of the same kind, that the second platform provisions. */
  readonly otherAgent?: string;
  /** What a test may want otherwise than a person who watches. */
  readonly flushAfterMs?: number;
  readonly indexFlushAfterMs?: number;
  readonly grantSeconds?: number;
  readonly callsPerSecond?: number;
  readonly burst?: number;
  /** Who pushes security events. For tests of what comes of them. */
  readonly transmitter?: LocalTransmitter;
  /** Who is told of requests for approval. Its secret comes with the bindings. */
  readonly webhook?: string;
  readonly rules?: Readonly<Record<string, RuleSource>>;
  readonly quotas?: ConfigSource["quotas"];
  /** Cross App Access, and approval in advance. */
  readonly idJag?: ConfigSource["identityProviders"][string]["idJag"];
  readonly mandates?: Omit<NonNullable<ConfigSource["mandates"]>, "identityProvider">;
  /** Who may look, besides those who may act. */
  readonly viewers?: string;
  /** Where a test's own upstream listens, with bounds that are short enough to be reached in a test. */
  readonly hostile?: HostileUpstream;
  /** Upstreams of a test's own, and what every layer allows of them. */
  readonly more?: { readonly upstreams: ConfigSource["upstreams"]; readonly entries: readonly ScopeEntry[] };
}

export interface LocalTransmitter {
  readonly issuer: string;
  readonly jwksUri: string;
  /** SHA-256, in hex, of the bearer token that it presents. */
  readonly tokenDigest: string;
}

export interface HostileUpstream {
  readonly baseUrl: string;
  readonly limits?: {
    readonly concurrency?: number;
    readonly calls?: number;
    readonly bytes?: number;
    readonly refusalsRecordedPerMinute?: number;
  };
  readonly firstByteTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
  readonly totalTimeoutMs?: number;
  readonly maxRequestBytes?: number;
  readonly maxAnswerBytes?: number;
  readonly redact?: ConfigSource["upstreams"][string]["redact"];
  readonly forwardHeaders?: readonly string[];
  readonly delegation?: ConfigSource["upstreams"][string]["delegation"];
  /** The layer that speaks of the hostile upstream no more. */
  readonly without?: "entitlement" | "agent" | "boundaries";
  /** Calls of it that a person must approve. */
  readonly approve?: {
    readonly operations: readonly string[];
    readonly approval?: NonNullable<BoundarySource["approval"]>;
  };
}

const repositories = (operations: readonly string[], repo: readonly string[]): ScopeEntry => ({
  type: "http",
  upstream: "github",
  operations,
  where: { owner: ["acme"], repo },
});

const READ = [
  "GET /repos/{owner}/{repo}",
  "GET /repos/{owner}/{repo}/contents/{+path}",
  "GET /repos/{owner}/{repo}/issues",
  "GET /repos/{owner}/{repo}/issues/{issue_number}",
];
const COMMENT = ["POST /repos/{owner}/{repo}/issues/{issue_number}/comments"];
const CLOSE = repositories(["PATCH /repos/{owner}/{repo}/issues/{issue_number}"], ["widgets"]);
const CHAT: ScopeEntry = {
  type: "http",
  upstream: "model",
  operations: ["POST /v1/chat/completions"],
  where: { "body./model": ["gpt-4.1-mini"] },
};
const POST_TO_ENGINEERING: ScopeEntry = {
  type: "http",
  upstream: "slack",
  operations: ["POST /api/chat.postMessage"],
};
/** `hostile` may be asked anything; `strict`, at the same address, only what a rule on query and body lets pass; `ungranted` is in no scope of a test. */
const hostile = (layer?: "entitlement" | "agent" | "boundaries"): ScopeEntry[] =>
  local.hostile === undefined || local.hostile.without === layer
    ? []
    : [
        {
          type: "http",
          upstream: "hostile",
          operations: [
            ...["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map((method) => `${method} /{+path}`),
            "GET /trailing/",
          ],
        },
        { type: "http", upstream: "strict", operations: ["POST /rules/{rule}"], where: { "body./model": ["small"] } },
        { type: "http", upstream: "strict", operations: ["GET /rules/{rule}"], where: { "query.limit": ["1", "2"] } },
        { type: "http", upstream: "ungranted", operations: ["GET /{+path}"] },
      ];
const approvedByPerson = (): BoundarySource[] => {
  const { approve } = local.hostile ?? {};
  return approve === undefined ? [] : [{ type: "http", upstream: "hostile", effect: "approve", ...approve }];
};
const hostileUpstream = () => {
  const { baseUrl = "", limits: _, without: __, approve: ___, ...bounds } = local.hostile ?? {};
  // Not in Authorization: what the agent put there would not be overwritten by it.
  const credential = { kind: "header", header: "X-Hostile-Key", secret: "MODEL_KEY", value: "{secret}" } as const;
  return { baseUrl, credential, ...bounds };
};
const WHO_AM_I: ScopeEntry = { type: "http", upstream: "github", operations: ["GET /user"] };

const TRIAGE_BOT: ConfigSource["agents"][string] = {
  versions: {
    "1.4.0": {
      model: "gpt-4.1-mini",
      promptDigest: "sha256:5f2b0a3c9c6f7b1f0d4e8a6c2b9d7e1f3a5c8b0d2e4f6a8c0b1d3f5a7c9e0b2d",
      tools: { octokit: "22.0.1", slack: "1.0.0" },
    },
  },
  ceiling: [
    repositories([...READ, ...COMMENT], ["widgets", "helpdesk"]),
    WHO_AM_I,
    CHAT,
    POST_TO_ENGINEERING,
    ...hostile("agent"),
    ...(local.more?.entries ?? []),
    CLOSE,
  ],
  limits: {
    callsPerSecond: local.callsPerSecond ?? 20,
    burst: local.burst ?? 40,
    concurrency: 8,
    calls: 5_000,
    ...local.hostile?.limits,
  },
  // Bounds that a test has made as low as 1 leave nothing for anybody else.
  ...(local.hostile?.limits === undefined ? { delegation: { agents: ["summariser"], depth: 2, breadth: 4 } } : {}),
};

/** A sub-agent: it reads for whoever sent it. */
const SUMMARISER: ConfigSource["agents"][string] = {
  versions: { "2.0.0": { model: "gpt-4.1-nano", promptDigest: "sha256:9c1d…", tools: {} } },
  ceiling: [repositories(READ, ["widgets", "helpdesk"])],
  limits: { calls: 1_000 },
  delegation: { agents: ["summariser"], depth: 1, breadth: 2 },
};

export default defineConfig({
  origin: local.origin,
  identityProviders: {
    corp: {
      issuer: local.issuer,
      jwksUri: local.jwksUri,
      algorithms: ["ES256"],
      ...(local.idJag === undefined ? {} : { idJag: local.idJag }),
    },
  },
  platforms: {
    "build-platform": {
      agent: "triage-bot",
      identityProvider: "corp",
      subjectAudience: "build-platform-app",
      jwks: { keys: [local.platformKey as { kty: "EC"; kid: string }] },
    },
    ...(local.otherPlatformKey === undefined
      ? {}
      : {
          "other-platform": {
            agent: local.otherAgent ?? "triage-bot",
            identityProvider: "corp",
            subjectAudience: "other-app",
            jwks: { keys: [local.otherPlatformKey as { kty: "EC"; kid: string }] },
          },
        }),
  },
  agents: {
    "triage-bot": TRIAGE_BOT,
    summariser: SUMMARISER,
    ...(local.otherAgent === undefined ? {} : { [local.otherAgent]: TRIAGE_BOT }),
  },
  rules: { ...local.rules },
  // What one human's agents post in a day, however many there are.
  quotas: {
    "posts-a-day": { per: "human", upstreams: ["slack"], calls: 1_000, periodSeconds: 86_400 },
    ...local.quotas,
  },
  upstreams: {
    ...local.more?.upstreams,
    github: {
      baseUrl: local.github,
      credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
    },
    slack: {
      baseUrl: local.slack,
      credential: { kind: "header", header: "Authorization", secret: "SLACK_TOKEN" },
    },
    model: {
      baseUrl: local.model,
      credential: { kind: "header", header: "Authorization", secret: "MODEL_KEY" },
    },
    ...(local.hostile === undefined
      ? {}
      : { hostile: hostileUpstream(), strict: hostileUpstream(), ungranted: hostileUpstream() }),
  },
  entitlements: {
    groups: {
      engineering: [
        repositories([...READ, ...COMMENT], ["widgets"]),
        WHO_AM_I,
        CHAT,
        POST_TO_ENGINEERING,
        ...hostile("entitlement"),
        ...(local.more?.entries ?? []),
        CLOSE,
      ],
      support: [repositories(READ, ["helpdesk"])],
      // Less than engineering: what is left to who loses that.
      ...(local.hostile === undefined
        ? {}
        : { readers: [{ type: "http", upstream: "hostile", operations: ["GET /kept/{+path}"] }] }),
    },
  },
  boundaries: [
    repositories([...READ, ...COMMENT], ["widgets", "helpdesk"]),
    WHO_AM_I,
    CHAT,
    POST_TO_ENGINEERING,
    ...hostile("boundaries"),
    ...approvedByPerson(),
    ...(local.more?.entries ?? []),
    // Whoever may close an issue has a person asked first.
    { ...CLOSE, effect: "approve" },
  ],
  admins: {
    identityProvider: "corp",
    audience: "portcullis-admin",
    roles: {
      viewer: ["security-oncall", ...(local.viewers === undefined ? [] : [local.viewers])],
      operator: ["security-oncall", "security-ops"],
      auditor: ["security-oncall", "security-audit"],
      approver: ["security-oncall"],
    },
    breakGlass: { oncall: "BREAK_GLASS_ONCALL" },
  },
  ...(local.mandates === undefined ? {} : { mandates: { identityProvider: "corp", ...local.mandates } }),
  transmitters:
    local.transmitter === undefined
      ? {}
      : {
          "corp-signals": {
            issuer: local.transmitter.issuer,
            jwksUri: local.transmitter.jwksUri,
            audience: "portcullis-signals",
            identityProvider: "corp",
            authorization: "CORP_SIGNALS_TOKEN_SHA256",
            criticalSubjectMembers: ["tenant", "clearance"],
            acts: {
              "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change": { act: "pause" },
              "https://signals.example/event-type/laptop-stolen": { act: "kill", blockSeconds: 60 },
            },
          },
        },
  approvals: local.webhook === undefined ? {} : { webhook: { url: local.webhook, secret: "APPROVALS_WEBHOOK" } },
  grants: { grantSeconds: local.grantSeconds ?? 300 },
  transcripts: {
    flushAfterMs: local.flushAfterMs ?? 2_000,
    indexFlushAfterMs: local.indexFlushAfterMs ?? 10_000,
  },
});
