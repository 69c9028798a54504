import { describe, expect, it } from "vitest";
import { ConfigError, type ConfigSource, defineConfig } from "../../src/config/define.ts";

const USER = { type: "http", upstream: "github", operations: ["GET /user"] };

/** A right configuration, as plain data that a test may spoil. */
const right = () => ({
  origin: "https://gate.example",
  identityProviders: {
    corp: { issuer: "https://idp.example", jwksUri: "https://idp.example/jwks", algorithms: ["ES256"] },
  },
  platforms: {
    build: {
      agent: "bot",
      identityProvider: "corp",
      subjectAudience: "build-app",
      jwks: { keys: [{ kty: "EC", kid: "k" }] },
    },
  },
  agents: { bot: { versions: { "1.0.0": { model: "m", promptDigest: "d" } }, ceiling: [USER] } },
  upstreams: {
    github: {
      baseUrl: "https://api.github.com",
      credential: { kind: "header", header: "Authorization", secret: "TOKEN" },
    },
  },
  entitlements: { groups: { engineering: [USER] } },
  boundaries: [USER],
  admins: { identityProvider: "corp", audience: "admin-app", roles: { operator: ["security"] } },
});

const CAEP = "https://schemas.openid.net/secevent/caep/event-type/";
const TRANSMITTER = {
  issuer: "https://signals.example",
  jwksUri: "https://signals.example/jwks",
  audience: "us",
  identityProvider: "corp",
  authorization: "SIGNALS_TOKEN",
};

type Node = Record<string, unknown>;
/** The right one with one place changed; `undefined` takes it out. */
function spoil(path: string, value: unknown): ConfigSource {
  const config = right() as unknown as Node;
  const names = path.split("/");
  const last = names.pop() as string;
  let at = config;
  for (const name of names) {
    at[name] ??= {};
    at = at[name] as Node;
  }
  if (value === undefined) delete at[last];
  else at[last] = value;
  return config as unknown as ConfigSource;
}
function mistakes(source: ConfigSource): string[] {
  try {
    defineConfig(source);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    const [first, ...lines] = (error as Error).message.split("\n");
    expect(first).toBe("The configuration is not valid:");
    return lines.map((line) => line.trim());
  }
}

/** Two providers by name, of one issuer; a platform and an assertion's client for each. */
function twoOfOneIssuer(first: object, second: object): ConfigSource {
  const config = right() as unknown as { identityProviders: Node; platforms: Record<string, Node> } & Node;
  const { corp } = config.identityProviders as { corp: object };
  config.identityProviders = { corp: { ...corp, idJag: first }, again: { ...corp, idJag: second } };
  config.platforms["other"] = {
    ...config.platforms["build"],
    identityProvider: "again",
    subjectAudience: "other-app",
  };
  return config as unknown as ConfigSource;
}

describe("defineConfig", () => {
  it("refuses nothing at all", () => {
    const lines = mistakes({} as ConfigSource);
    for (const name of [
      "origin",
      "identityProviders",
      "platforms",
      "agents",
      "upstreams",
      "entitlements",
      "boundaries",
      "admins",
    ])
      expect(
        lines.some((line) => line.startsWith(`${name}: `)),
        name,
      ).toBe(true);
    expect(mistakes(undefined as unknown as ConfigSource)[0]).toMatch(/^\(top\): /);
  });

  it("fills in what was left out, closed rather than open", () => {
    const config = defineConfig(right() as ConfigSource);
    expect(config.grants).toEqual({ grantSeconds: 300, taskSeconds: 86_400, refreshTokens: true });
    expect(config.admins.roles).toEqual({ viewer: [], operator: ["security"], auditor: [], approver: [] });
    expect(config.secrets).toEqual({ grantKeys: "GRANT_KEYS", sealKeys: "SEAL_KEYS" });
    expect(config.platforms["build"]?.algorithms).toEqual(["ES256", "Ed25519"]);
    expect(config.agents["bot"]?.limits.calls).toBe(10_000);
    expect(config.upstreams["github"]?.encodedSlash).toBe("data");
    expect(config.upstreams["github"]?.forwardHeaders).toEqual([]);
    expect(config.transmitters).toEqual({});
    const { transmitters } = defineConfig(spoil("transmitters/corp", TRANSMITTER));
    expect(transmitters["corp"]).toMatchObject({ algorithms: ["RS256", "ES256"], acts: {} });
  });

  it.each<[path: string, value: unknown, line: RegExp]>([
    ["origin", "https://gate.example/", /^origin: an origin/],
    ["origin", "https://gate.example/path", /^origin: an origin/],
    ["origin", "https://GATE.example", /^origin: an origin/],
    ["origin", "http://gate.example", /^origin: an https URL/],
    ["origin", "https://user@gate.example", /^origin: an https URL/],
    ["other", 1, /^\(top\): .*"other"/],
    ["identityProviders/corp/issuer", "idp", /^identityProviders\.corp\.issuer: /],
    ["identityProviders/corp/jwksUri", "http://idp.example/jwks", /^identityProviders\.corp\.jwksUri: an https URL/],
    ["identityProviders/corp/jwksUri", "http://127.0.0.1/jwks", /^identityProviders\.corp\.jwksUri: plain http/],
    ["identityProviders/corp/jwksUri", "http://localhost/jwks", /^identityProviders\.corp\.jwksUri: plain http/],
    ["identityProviders/corp/jwksUri", "file:///jwks", /^identityProviders\.corp\.jwksUri: /],
    ["identityProviders/corp/algorithms", ["HS256"], /^identityProviders\.corp\.algorithms\.0: /],
    ["identityProviders/corp/algorithms", ["none"], /^identityProviders\.corp\.algorithms\.0: /],
    ["identityProviders/corp/algorithms", ["EdDSA"], /^identityProviders\.corp\.algorithms\.0: /],
    ["identityProviders/corp/algorithms", [], /^identityProviders\.corp\.algorithms: /],
    ["identityProviders/corp/groupsClaim", "", /^identityProviders\.corp\.groupsClaim: /],
    ["platforms/Build", {}, /^platforms\.Build: /],
    ["platforms/a_b", {}, /^platforms\.a_b: /],
    ["platforms/build/agent", "nobody", /^platforms\.build\.agent: no agent "nobody" under agents$/],
    [
      "agents/bot/delegation",
      { agents: ["nobody"] },
      /^agents\.bot\.delegation\.agents\.0: no agent "nobody" under agents$/,
    ],
    ["agents/bot/delegation", { agents: ["bot"], depth: 9 }, /^agents\.bot\.delegation\.depth: /],
    ["agents/bot/delegation", { agents: ["bot"], breadth: 0 }, /^agents\.bot\.delegation\.breadth: /],
    [
      "agents/bot/delegation",
      { agents: ["bot"], breadth: 6, total: 5 },
      /^agents\.bot\.delegation\.breadth: more than `total` can never live at the same time$/,
    ],
    [
      "agents/bot",
      { ...right().agents.bot, limits: { burst: 1 }, delegation: { agents: ["bot"] } },
      /^agents\.bot\.delegation\.agents: a limit of 1 \(concurrency, burst\) leaves nothing for a sub-agent$/,
    ],
    ["platforms/build/agent", "constructor", /^platforms\.build\.agent: no agent "constructor"/],
    ["platforms/build/identityProvider", "other", /^platforms\.build\.identityProvider: no provider "other"/],
    ["platforms/build/subjectAudience", "", /^platforms\.build\.subjectAudience: /],
    [
      "platforms/build/subjectAudience",
      "admin-app",
      /^platforms\.build\.subjectAudience: the same as admins\.audience/,
    ],
    ["platforms/build/jwks", { keys: [] }, /^platforms\.build\.jwks\.keys: /],
    ["platforms/build/jwks", { keys: [{ kty: "oct", k: "AAAA" }] }, /^platforms\.build\.jwks\.keys\.0\.kty: /],
    ["platforms/build/jwks", { keys: [{ kty: "EC", d: "AAAA" }] }, /^platforms\.build\.jwks\.keys: public keys only/],
    ["platforms/build/secret", "s", /^platforms\.build: .*"secret"/],
    ["agents/bot/versions", {}, /^agents\.bot\.versions: at least one version$/],
    ["agents/bot/versions/a b", { model: "m", promptDigest: "d" }, /^agents\.bot\.versions\.a b: /],
    ["agents/bot/versions/1.0.0/model", "", /^agents\.bot\.versions\.1\.0\.0\.model: /],
    ["agents/bot/ceiling", undefined, /^agents\.bot\.ceiling: /],
    [
      "agents/bot/ceiling",
      [{ ...USER, upstream: "nowhere" }],
      /^agents\.bot\.ceiling\.0\.upstream: no upstream "nowhere"/,
    ],
    ["agents/bot/ceiling", [{ ...USER, operations: ["GET"] }], /^agents\.bot\.ceiling: \[0\]\.operations\[0\]: /],
    ["agents/bot/limits", { calls: 0 }, /^agents\.bot\.limits\.calls: /],
    ["agents/bot/limits", { calls: 1.5 }, /^agents\.bot\.limits\.calls: /],
    ["agents/bot/limits", { callsPerSecond: 0 }, /^agents\.bot\.limits\.callsPerSecond: /],
    ["agents/bot/limits", { callsPerMinute: 1 }, /^agents\.bot\.limits: .*"callsPerMinute"/],
    ["upstreams/GitHub", {}, /^upstreams\.GitHub: /],
    ["upstreams/github/baseUrl", "https://api.github.com/", /^upstreams\.github\.baseUrl: no slash at the end$/],
    ["upstreams/github/baseUrl", "https://api.github.com?a=b", /^upstreams\.github\.baseUrl: an https URL/],
    ["upstreams/github/baseUrl", "https://user:pw@api.github.com", /^upstreams\.github\.baseUrl: an https URL/],
    ["upstreams/github/baseUrl", "http://127.0.0.1:9", /^upstreams\.github\.baseUrl: plain http/],
    [
      "upstreams/github/credential/secret",
      "ghp_value",
      /^upstreams\.github\.credential\.secret: the name of a Worker secret/,
    ],
    ["upstreams/github/credential/header", "A: b", /^upstreams\.github\.credential\.header: a header name$/],
    ["upstreams/github/credential/value", "Bearer", /^upstreams\.github\.credential\.value: /],
    ["upstreams/github/credential/kind", "constructor", /^upstreams\.github\.credential\.kind: /],
    ["upstreams/github/forwardHeaders", ["A: b"], /^upstreams\.github\.forwardHeaders\.0: a header name$/],
    ["upstreams/github/forwardHeaders", [""], /^upstreams\.github\.forwardHeaders\.0: a header name$/],
    ["upstreams/github/forwardHeaders", "X-A", /^upstreams\.github\.forwardHeaders: /],
    ...[
      "Connection",
      "TE",
      "Host",
      "Cookie",
      "DPoP",
      "Proxy-Anything",
      "X-Forwarded-For",
      "x_real_ip",
      "X_Api-Key",
      "Portcullis_Delegation",
      "Txn-Token",
      "Impersonate-User",
      "Sudo",
    ].map((name): [string, unknown, RegExp] => [
      "upstreams/github/forwardHeaders",
      ["X-Fine", name],
      /^upstreams\.github\.forwardHeaders\.1: never passed on/,
    ]),
    [
      "upstreams/github",
      {
        ...right().upstreams.github,
        credential: { kind: "header", header: "X-Own-Key", secret: "S" },
        forwardHeaders: ["x_OWN-key"],
      },
      /^upstreams\.github\.forwardHeaders\.0: the header of the upstream's own credential$/,
    ],
    ["upstreams/github/delegation", { header: "Host" }, /^upstreams\.github\.delegation\.header: a header of its own/],
    ["upstreams/github/delegation", { header: "X_Y" }, /^upstreams\.github\.delegation\.header: a header name$/],
    ["upstreams/github/delegation", { audience: "" }, /^upstreams\.github\.delegation\.audience: /],
    [
      "upstreams/github/delegation",
      { header: "authorization" },
      /^upstreams\.github\.delegation\.header: the header of the upstream's credential$/,
    ],
    [
      // Its credential is a token, which goes out in a header that the configuration does not name.
      "upstreams/github",
      {
        ...right().upstreams.github,
        credential: {
          kind: "oauth-client-credentials",
          tokenEndpoint: "https://as.example/token",
          clientId: "gate",
          authentication: { method: "client_secret_basic", secret: "S" },
        },
        delegation: { header: "Authorization" },
      },
      /^upstreams\.github\.delegation\.header: the header of the upstream's credential$/,
    ],
    [
      "upstreams/github",
      { ...right().upstreams.github, delegation: { header: "X-Who" }, forwardHeaders: ["x_who"] },
      /^upstreams\.github\.forwardHeaders\.0: the header of a signed delegation$/,
    ],
    ...["Range", "if_range", "Request-Range", "X-MS-Range"].map((name): [string, unknown, RegExp] => [
      "upstreams/github/forwardHeaders",
      [name],
      /^upstreams\.github\.forwardHeaders\.0: asks for a part: `ranges: true` lets it pass$/,
    ]),
    [
      // Another upstream's, which does not even ask for it.
      "upstreams",
      {
        github: { ...right().upstreams.github, delegation: { header: "X-Who" } },
        other: { ...right().upstreams.github, forwardHeaders: ["X-WHO"] },
      },
      /^upstreams\.other\.forwardHeaders\.0: the header of a signed delegation$/,
    ],
    ["upstreams/mandates", right().upstreams.github, /^upstreams\.mandates: .*: the name of another door \(/],
    ["mandates", { identityProvider: "x", audience: "a" }, /^mandates\.identityProvider: no provider "x"/],
    [
      "mandates",
      { identityProvider: "corp", audience: "admin-app" },
      /^mandates\.audience: the same as admins\.audience/,
    ],
    [
      "mandates",
      { identityProvider: "corp", audience: "build-app" },
      /^mandates\.audience: the same as platforms\.build\.subjectAudience/,
    ],
    ["mandates", { identityProvider: "corp", audience: "a", longestSeconds: 1e9 }, /^mandates\.longestSeconds: /],
    [
      "identityProviders/corp/idJag",
      { clients: { nobody: "x" } },
      /^identityProviders\.corp\.idJag\.clients\.nobody: no platform "nobody" with this provider$/,
    ],
    [
      "identityProviders/corp/idJag",
      { scopes: { "a b": [] } },
      /^identityProviders\.corp\.idJag\.scopes\.a b: Invalid key/,
    ],
    [
      "identityProviders/corp/idJag",
      { scopes: { all: [{ ...USER, upstream: "nowhere" }] } },
      /^identityProviders\.corp\.idJag\.scopes\.all\.0\.upstream: no upstream "nowhere"/,
    ],
    ["upstreams/github/totalTimeoutMs", -1, /^upstreams\.github\.totalTimeoutMs: /],
    ["entitlements/groups/engineering", "all", /^entitlements\.groups\.engineering: must be an array$/],
    [
      "entitlements/groups/engineering",
      [{ ...USER, upstream: "nowhere" }],
      /^entitlements\.groups\.engineering\.0\.upstream: no upstream/,
    ],
    [
      "entitlements/groups/engineering",
      [{ ...USER, type: "ftp" }],
      /^entitlements\.groups\.engineering: \[0\]\.type: /,
    ],
    ["entitlements/users", {}, /^entitlements: .*"users"/],
    ["entitlements/humans", { ada: [] }, /^entitlements\.humans\.ada: an e-mail address, or a human's id/],
    ["entitlements/humans", { ["x".repeat(42)]: [] }, /^entitlements\.humans\.x+: an e-mail address, or a human's id/],
    [
      "entitlements/humans",
      { "ada@acme.example": [], "Ada@ACME.example": [USER] },
      /^entitlements\.humans\.Ada@ACME\.example: the same address as ada@acme\.example$/,
    ],
    [
      "entitlements/humans",
      { "ada@acme.example": [{ ...USER, upstream: "nowhere" }] },
      /^entitlements\.humans\.ada@acme\.example\.0\.upstream: no upstream "nowhere"/,
    ],
    ["identityProviders/corp/maxTokenAgeSeconds", 0, /^identityProviders\.corp\.maxTokenAgeSeconds: /],
    ["boundaries", [{ ...USER, where: { "body.x": [1] } }], /^boundaries: \[0\]\.where\.body\.x: /],
    ["boundaries", [{ ...USER, effect: "deny" }], /^boundaries\.0\.effect: /],
    ["boundaries", [{ ...USER, approval: {} }], /^boundaries\.0\.approval: only with effect: "approve"/],
    ["boundaries", [{ ...USER, effect: "approve" }], /^admins\.roles\.approver: needed: boundaries ask for approval/],
    ["agents/bot/ceiling", [{ ...USER, effect: "approve" }], /^agents\.bot\.ceiling: \[0\]\.effect: unknown field/],
    ["approvals/webhook", { url: "http://127.0.0.1/x", secret: "S" }, /^approvals\.webhook\.url: plain http is only/],
    ["approvals/samePerson", [["ada@acme.example"]], /^approvals\.samePerson\.0: /],
    ["approvals/samePerson", [["ada@acme.example", "ada"]], /^approvals\.samePerson\.0\.1: an e-mail address, or/],
    [
      "approvals/samePerson",
      [
        ["ada@acme.example", "ada-admin@acme.example"],
        ["x@acme.example", "ADA@acme.example"],
      ],
      /^approvals\.samePerson\.1\.1: is named twice$/,
    ],
    ["approvals/webhook", { url: "https://hooks.example/x" }, /^approvals\.webhook\.secret: /],
    ["approvals/webhook", { url: "https://hooks.example/x", secret: "whsec_x" }, /the name of a Worker secret/],
    ["boundaries", [{ ...USER, upstream: "constructor" }], /^boundaries\.0\.upstream: no upstream "constructor"/],
    ["admins/identityProvider", "other", /^admins\.identityProvider: no provider "other" under identityProviders$/],
    ["admins/audience", "", /^admins\.audience: /],
    ["admins/roles/root", ["a"], /^admins\.roles: .*"root"/],
    ["transmitters/Corp", TRANSMITTER, /^transmitters\.Corp: /],
    ["transmitters/corp", {}, /^transmitters\.corp\.issuer: /],
    ["transmitters/corp", { ...TRANSMITTER, jwksUri: "http://127.0.0.1/jwks" }, /^transmitters\.corp\.jwksUri: plain/],
    ["transmitters/corp", { ...TRANSMITTER, issuer: "signals" }, /^transmitters\.corp\.issuer: an https URL/],
    ["transmitters/corp", { ...TRANSMITTER, audience: "" }, /^transmitters\.corp\.audience: /],
    ["transmitters/corp", { ...TRANSMITTER, algorithms: ["none"] }, /^transmitters\.corp\.algorithms\.0: /],
    [
      "transmitters/corp",
      { ...TRANSMITTER, identityProvider: "constructor" },
      /^transmitters\.corp\.identityProvider: no provider "constructor"/,
    ],
    ["transmitters/corp", { ...TRANSMITTER, authorization: "a-token" }, /^transmitters\.corp\.authorization: the name/],
    [
      "transmitters/corp",
      { ...TRANSMITTER, acts: { "session-revoked": { act: "kill" } } },
      /^transmitters\.corp\.acts\.session-revoked: the URI of an event$/,
    ],
    [
      "transmitters/corp",
      { ...TRANSMITTER, acts: { [`${CAEP}sessions-revoked`]: { act: "kill" } } },
      /sessions-revoked: no event of CAEP or RISC has this URI$/,
    ],
    ["transmitters/corp", { ...TRANSMITTER, acts: { [`${CAEP}session-revoked`]: { act: "lift" } } }, /\.act: /],
    [
      "transmitters/corp",
      { ...TRANSMITTER, acts: { [`${CAEP}token-claims-change`]: { act: "narrow", blockSeconds: 5 } } },
      /^transmitters\.corp\.acts\..*token-claims-change\.blockSeconds: not with narrow/,
    ],
    [
      "transmitters/corp",
      { ...TRANSMITTER, acts: { [`${CAEP}session-revoked`]: { act: "kill", blockSeconds: 0 } } },
      /\.blockSeconds: /,
    ],
    ["upstreams/ssf", right().upstreams.github, /^upstreams\.ssf: /],
    ["grants/grantSeconds", 3_601, /^grants\.grantSeconds: /],
    ["grants/grantSeconds", 0, /^grants\.grantSeconds: /],
    ["grants/taskSeconds", 31_536_001, /^grants\.taskSeconds: /],
    ["grants/refreshTokens", "no", /^grants\.refreshTokens: /],
    ["transcripts/flushAfterMs", 600_001, /^transcripts\.flushAfterMs: /],
    ["transcripts/retention", { lockDays: 0 }, /^transcripts\.retention\.lockDays: /],
    ["transcripts/retention", { bodiesDays: 1.5 }, /^transcripts\.retention\.bodiesDays: /],
    ["transcripts/streamLeadBytes", 1_048_577, /^transcripts\.streamLeadBytes: /],
    ["roster/confirmationMs", 600_001, /^roster\.confirmationMs: /],
    ["placement/jurisdiction", "moon", /^placement\.jurisdiction: /],
    ["placement/locationHint", "moon", /^placement\.locationHint: /],
    ["secrets/grantKeys", "grant-keys", /^secrets\.grantKeys: the name of a Worker secret/],
  ])("names the path of what is wrong: %s = %j", (path, value, line) => {
    const lines = mistakes(spoil(path, value));
    expect(
      lines.some((one) => line.test(one)),
      lines.join("\n"),
    ).toBe(true);
  });

  // Known to be wrong: it throws a TypeError that names nothing.
  it("names the path of an origin that is no URL", () =>
    expect(mistakes(spoil("origin", "gate.example"))[0]).toMatch(/^origin: /));
  it("takes no issuer on loopback for a gate that is not", () =>
    expect(mistakes(spoil("identityProviders/corp/issuer", "http://127.0.0.1"))).toHaveLength(1));

  const NOT_CANONICAL: [url: string][] = [
    ["https://api.github.com/v1?"],
    ["https://api.github.com/v1#"],
    [" https://api.github.com"],
    ["https://api.github.com "],
    ["https:\\\\api.github.com"],
    ["https://api.github.com\\v1"],
    ["https://api.github.com/a/../b"],
    ["https://api.github.com/%2e%2e/b"],
    ["https://api.github.com/@me"],
    ["https://@api.github.com"],
    ["https://API.github.com"],
    ["https://api.github.com:443"],
    ["https:api.github.com"],
    ["https://api.github.com/a\tb"],
    ["https://api.github.com/é"],
  ];
  const URL_PATHS = ["upstreams/github/baseUrl", "identityProviders/corp/issuer", "identityProviders/corp/jwksUri"];
  it.each(NOT_CANONICAL)("takes no URL that a parser would spell otherwise, or that holds ?, # or @: %j", (url) => {
    for (const path of URL_PATHS)
      expect(mistakes(spoil(path, url))[0]).toMatch(
        /: an https URL in canonical form, without credentials, query or fragment/,
      );
  });
  it.each([
    ["upstreams/github/baseUrl", "https://api.github.com"],
    ["upstreams/github/baseUrl", "https://api.github.com:8443/v1/a%20b"],
    ["identityProviders/corp/issuer", "https://idp.example"],
    ["identityProviders/corp/issuer", "https://idp.example/"],
    ["identityProviders/corp/issuer", "https://idp.example/tenant/v2.0"],
    ["identityProviders/corp/issuer", "https://idp.example/tenant/v2.0/"],
    ["identityProviders/corp/jwksUri", "https://idp.example/.well-known/jwks.json"],
  ])("takes %s = %s", (path, url) => expect(mistakes(spoil(path, url))).toEqual([]));

  it.each([
    "Connection",
    "keep-alive",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Host",
    "HOST",
    "Expect",
    "Content-Length",
    "content-type",
    "Content-Encoding",
    "Accept-Encoding",
    "DPoP",
  ])("places no credential in %s", (header) =>
    expect(mistakes(spoil("upstreams/github/credential/header", header))).toEqual([
      expect.stringMatching(/^upstreams\.github\.credential\.header: a header that carries credentials/),
    ]));
  it.each(["Authorization", "X-Api-Key", "Private-Token", "Tea", "Hosted-Key"])("places a credential in %s", (header) =>
    expect(mistakes(spoil("upstreams/github/credential/header", header))).toEqual([]));

  it("keeps admins and platforms apart at one issuer, by whatever names it is known", () => {
    const { corp } = right().identityProviders;
    const sameAudience = spoil("platforms/build/subjectAudience", "admin-app") as unknown as Node;
    const named = (other: object) =>
      mistakes({
        ...sameAudience,
        identityProviders: { corp, staff: other },
        admins: { ...right().admins, identityProvider: "staff" },
      } as unknown as ConfigSource);
    expect(named({ ...corp, jwksUri: "https://idp.example/other" })).toEqual([
      "platforms.build.subjectAudience: the same as admins.audience: give each its own client",
    ]);
    expect(named({ ...corp, issuer: "https://staff.example" })).toEqual([]);
  });

  it("gives no two platforms one client at an issuer: an ID token for the one would be good for the other", () => {
    const { build } = right().platforms;
    const named = (ops: object, issuer = "https://idp.example") => {
      const staff = { ...right().identityProviders.corp, issuer };
      const identityProviders = { ...right().identityProviders, staff };
      const platforms = { build, ops: { ...build, identityProvider: "staff", ...ops } };
      return mistakes({ ...right(), identityProviders, platforms } as unknown as ConfigSource);
    };
    expect(named({})).toEqual([
      "platforms.ops.subjectAudience: the same as platforms.build.subjectAudience: give each its own client",
    ]);
    expect(named({ subjectAudience: "ops-app" })).toEqual([]);
    expect(named({}, "https://staff.example")).toEqual([]);
  });

  it("takes plain http where the gate itself runs on loopback, and nowhere else", () => {
    const local = spoil("origin", "http://127.0.0.1:8787") as unknown as Node;
    const upstreams = { github: { ...right().upstreams.github, baseUrl: "http://localhost:9" } };
    expect(mistakes({ ...local, upstreams } as unknown as ConfigSource)).toEqual([]);
    expect(mistakes(spoil("upstreams/github/baseUrl", "http://10.0.0.1"))[0]).toMatch(/an https URL/);
  });

  it("names every mistake at once, and repeats no value that could be a secret", () => {
    const config = spoil("upstreams/github/credential/secret", "ghp_0123456789") as unknown as Node;
    config["boundaries"] = [{ ...USER, where: { "body./x": "ghp_0123456789" } }];
    const lines = mistakes(config as unknown as ConfigSource);
    expect(lines.length).toBeGreaterThanOrEqual(2);
    expect(lines.join("\n")).not.toContain("ghp_");
  });
});

describe("two providers of one issuer", () => {
  it("are right with a client and the tenant of their own, or none", () => {
    expect(mistakes(twoOfOneIssuer({}, {}))).toEqual([]);
    expect(mistakes(twoOfOneIssuer({ tenant: "acme" }, { tenant: "acme", clients: { other: "o" } }))).toEqual([]);
  });

  it("give no assertion of one platform's client to another's", () => {
    expect(mistakes(twoOfOneIssuer({ clients: { build: "app" } }, { clients: { other: "app" } }))).toEqual([
      "identityProviders.corp.idJag.clients.build: the client_id of another platform",
      "identityProviders.again.idJag.clients.other: the client_id of another platform",
    ]);
    expect(mistakes(twoOfOneIssuer({ clients: { build: "other" } }, {}))).toEqual([
      "identityProviders.corp.idJag.clients.build: the client_id of another platform",
    ]);
  });

  it("are not of two tenants: one `sub` is somebody else at each, and a human is known by issuer and `sub`", () => {
    const tenants = /^identityProviders\.again\.idJag\.tenant: not that of corp, which has the same issuer/;
    for (const second of [{ tenant: "beta" }, {}])
      expect(mistakes(twoOfOneIssuer({ tenant: "acme" }, second))).toEqual([expect.stringMatching(tenants)]);
  });
});
