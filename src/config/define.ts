import { z } from "zod";
import { isLoopback } from "../loopback.ts";
import type { Json } from "../scope/call.ts";
import { type Entry, parseEntries } from "../scope/entry.ts";
import { findForwardingFault } from "./forward-headers.ts";
import { redactionRules } from "./redaction.ts";
import { retention } from "./retention.ts";
import { rule, ruleName } from "./rules.ts";
import { findEventNameFault, SIGNAL_ACTS } from "./signal-acts.ts";

/**
 * The configuration of a deployment. It is code: type-checked where it is written, checked in full when the Worker
 * starts (a bad one never serves a request), bundled, and versioned by the deployment. It holds no secret, only the
 * names of secrets.
 */

/** First path segments of the other doors. */
const RESERVED = ["oauth", "admin", "console", "ssf"];

const upstreamName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes")
  .refine((name) => !RESERVED.includes(name), "the name of another door (oauth, admin, console, ssf)");
/** Part of a task's id, which is part of an R2 key. No underscore: it separates platform and task. */
const clientName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,22}$/, "a lower-case name of at most 23 letters, digits and dashes");
const agentName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, "a lower-case name of at most 63 letters, digits and dashes");
/** Part of the path that it pushes to. */
const transmitterName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes");
const secretName = z.string().regex(/^[A-Z][A-Z0-9_]*$/, "the name of a Worker secret, e.g. GITHUB_TOKEN");
const versionName = z.string().regex(/^[A-Za-z0-9._+-]{1,64}$/, "a version, e.g. 1.4.0");
const positive = z.number().int().positive();

/**
 * In the one spelling that a URL parser gives it back in, with or without the slash of an empty path: what is compared or joined as text
 * is then what is asked. An empty query or fragment counts as one.
 */
const httpUrl = z.string().refine((text) => {
  if (!URL.canParse(text) || /[?#@]/.test(text)) return false;
  const url = new URL(text);
  if (url.href !== text && !(url.pathname === "/" && url.href === `${text}/`)) return false;
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url));
}, "an https URL in canonical form, without credentials, query or fragment (http only on loopback)");

/** What frames or routes a request, says what its body is, or is the gate's own: never a place for a credential. */
const NO_CREDENTIAL_HEADER =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|host|expect|content-.*|accept-encoding|dpop)$/i;

const entries = z.unknown().transform((value, ctx): readonly Entry[] => {
  const parsed = parseEntries(value, "");
  if (parsed.ok) return parsed.value;
  ctx.addIssue({ code: "custom", message: `${parsed.error.path.replace(/^\./, "")}: ${parsed.error.message}` });
  return z.NEVER;
});

const publicJwks = z.object({
  keys: z
    .array(
      z.looseObject({
        kty: z.enum(["EC", "OKP", "RSA"]),
        kid: z.string().min(1).optional(),
        alg: z.string().optional(),
      }),
    )
    .min(1)
    .refine(
      (keys) => keys.every((key) => !("d" in key) && !("k" in key)),
      "public keys only: a private member was found",
    ),
});

const algorithms = z.array(z.enum(["ES256", "ES384", "RS256", "PS256", "Ed25519"])).min(1);

const identityProvider = z.strictObject({
  /** Compared byte for byte with `iss`. */
  issuer: httpUrl,
  jwksUri: httpUrl,
  algorithms: algorithms.default(["ES256", "RS256"]),
  groupsClaim: z.string().min(1).default("groups"),
});

const limits = z.strictObject({
  /** Token bucket: sustained calls a second, and how many at once after a rest. */
  callsPerSecond: z.number().positive().default(10),
  burst: positive.default(20),
  /** Calls of one instance running at the same time. */
  concurrency: positive.default(10),
  /** Budgets of the whole grant, until the task ends. */
  calls: positive.default(10_000),
  bytes: positive.default(1_073_741_824),
  /** Beyond this many a minute, refusals share one counted record. */
  refusalsRecordedPerMinute: positive.default(30),
});

const platform = z.strictObject({
  /** The agent this OAuth client provisions. */
  agent: agentName,
  identityProvider: z.string(),
  /** The `aud` of the ID tokens that this platform may present: its own client at the identity provider. */
  subjectAudience: z.string().min(1),
  jwks: publicJwks,
  algorithms: algorithms.default(["ES256", "Ed25519"]),
});

const manifest = z.strictObject({
  model: z.string().min(1),
  promptDigest: z.string().min(1),
  tools: z.record(z.string(), z.string()).default({}),
});

const agent = z.strictObject({
  versions: z.record(versionName, manifest).refine((v) => Object.keys(v).length > 0, "at least one version"),
  ceiling: entries,
  limits: limits.prefault({}),
});

const upstream = z.strictObject({
  type: z.literal("http").default("http"),
  /** The gate's `/<name>/rest` becomes `<baseUrl>/rest`. */
  baseUrl: httpUrl.refine((text) => !text.endsWith("/"), "no slash at the end"),
  /** `{secret}` in `value` is replaced when the call leaves, by the one file that opens secrets. */
  credential: z.strictObject({
    kind: z.literal("header"),
    header: z
      .string()
      .regex(/^[A-Za-z0-9-]{1,64}$/, "a header name")
      .refine(
        (name) => !NO_CREDENTIAL_HEADER.test(name),
        "a header that carries credentials, not Host, Content-* or the like",
      ),
    secret: secretName,
    value: z.string().includes("{secret}").default("Bearer {secret}"),
  }),
  /** `refuse` where the upstream is known to decode `%2F` before it routes. */
  encodedSlash: z.enum(["data", "refuse"]).default("data"),
  /** Headers of an agent's request that pass besides those about content; in lower case once read. */
  forwardHeaders: z
    .array(
      z
        .string()
        .regex(/^[A-Za-z0-9_-]{1,64}$/, "a header name")
        .transform((name) => name.toLowerCase()),
    )
    .readonly()
    .default([]),
  /** What of its calls is not written down. */
  redact: redactionRules.default([]),
  firstByteTimeoutMs: positive.default(60_000),
  idleTimeoutMs: positive.default(120_000),
  totalTimeoutMs: positive.default(900_000),
  maxRequestBytes: positive.default(104_857_600),
  maxAnswerBytes: positive.default(1_073_741_824),
});

const transmitter = z.strictObject({
  /** Compared byte for byte with `iss`. */
  issuer: httpUrl,
  jwksUri: httpUrl,
  /** What `aud` must hold: how the stream names this receiver. */
  audience: z.string().min(1),
  algorithms: algorithms.default(["RS256", "ES256"]),
  /** Whose humans its subjects are. */
  identityProvider: z.string(),
  /** The secret that holds the SHA-256, in hex, of the bearer token that it presents. */
  authorization: secretName,
  /** Members of complex subjects that it calls critical (`critical_subject_members` of its metadata). */
  criticalSubjectMembers: z.array(z.string()).readonly().default([]),
  /** By the URI of an event: what it does, where that is not what the table in signal-acts.ts says. */
  acts: z
    .record(
      z.string(),
      z.strictObject({
        act: z.enum(SIGNAL_ACTS),
        /** Counted from the event's `iat`; null: until somebody opens it. */
        blockSeconds: positive.max(31_536_000).nullable().optional(),
      }),
    )
    .superRefine((acts, ctx) => {
      for (const event of Object.keys(acts)) {
        const fault = findEventNameFault(event);
        if (fault !== undefined) ctx.addIssue({ code: "custom", path: [event], message: fault });
      }
    })
    .default({}),
});

const duration = {
  /** Life of an access token. */
  grantSeconds: positive.max(3600).default(300),
  /** The longest a task may be asked to last. */
  taskSeconds: positive.max(31_536_000).default(86_400),
};

export const configSchema = z
  .strictObject({
    /** The gate's own origin: issuer of grants, and the base of every `htu` and `aud`. Never taken from a `Host` header. */
    origin: httpUrl.refine(
      (text) => URL.canParse(text) && new URL(text).origin === text,
      "an origin, e.g. https://gate.example.com",
    ),
    identityProviders: z.record(z.string(), identityProvider),
    platforms: z.record(clientName, platform),
    agents: z.record(agentName, agent),
    upstreams: z.record(upstreamName, upstream),
    /** What humans may do, by group of the identity provider. A human in no group here may do nothing. */
    entitlements: z.strictObject({ groups: z.record(z.string(), entries) }),
    /** What anyone in the organisation may do through agents at all. */
    boundaries: entries,
    admins: z.strictObject({
      identityProvider: z.string(),
      /** The `aud` of the tokens that admins present. */
      audience: z.string().min(1),
      /** Older tokens are not taken, however long they would be valid. */
      tokenMaxAgeSeconds: positive.max(86_400).default(3_600),
      /**
       * For when the identity provider is down: by name, the secret that holds the SHA-256, in hex, of a key of at least
       * 256 random bits. Who presents the key as a bearer token can kill, and nothing else.
       */
      breakGlass: z.record(agentName, secretName).default({}),
      /** Groups of the identity provider that hold each role. */
      roles: z.strictObject({
        viewer: z.array(z.string()).default([]),
        operator: z.array(z.string()).default([]),
        auditor: z.array(z.string()).default([]),
      }),
    }),
    /** Who may push security events about the humans of an identity provider (SSF, CAEP, RISC). */
    transmitters: z.record(transmitterName, transmitter).default({}),
    grants: z.strictObject({ ...duration, refreshTokens: z.boolean().default(true) }).prefault({}),
    transcripts: z
      .strictObject({
        /** Records wait at most this long before they leave for R2. */
        flushAfterMs: positive.max(600_000).default(30_000),
        /** And at most this many bytes. */
        flushAfterBytes: positive.default(8_388_608),
        /** Entries of the index of segments wait at most this long: they are many, and small. */
        indexFlushAfterMs: positive.max(3_600_000).default(300_000),
        /** While R2 can't be written the log holds this much, then calls are refused. */
        maxHeldBytes: positive.default(1_073_741_824),
        /** A stream's lead over what is durable. */
        streamLeadMs: positive.max(60_000).default(1_000),
        streamLeadBytes: positive.max(1_048_576).default(262_144),
        retention: retention.prefault({}),
      })
      .prefault({}),
    roster: z
      .strictObject({
        /** How long an instance may go on without asking: the bound of a kill whose push can't get through. */
        confirmationMs: positive.max(600_000).default(60_000),
        /** Objects that share the roster, about one for each 100,000 instances. More at any time; who is enlisted stays where it is. */
        shards: positive.max(256).default(4),
      })
      .prefault({}),
    /** Switches that close by themselves. */
    rules: z.record(ruleName, rule).default({}),
    placement: z
      .strictObject({
        /** Where Durable Objects must stay. The bucket's own jurisdiction is set where it is made, and in wrangler.toml. */
        jurisdiction: z.enum(["eu", "us", "fedramp", "fedramp-high"]).optional(),
        locationHint: z.enum(["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"]).optional(),
      })
      .prefault({}),
    /** Each a JWK set of private keys, of Ed25519, those of seals of ES256 as well; the first signs, all verify. */
    secrets: z
      .strictObject({ grantKeys: secretName.default("GRANT_KEYS"), sealKeys: secretName.default("SEAL_KEYS") })
      .prefault({}),
  })
  .superRefine((config, ctx) => {
    const missing = (path: (string | number)[], message: string) => ctx.addIssue({ code: "custom", path, message });
    for (const [name, { agent, identityProvider }] of Object.entries(config.platforms)) {
      if (!Object.hasOwn(config.agents, agent))
        missing(["platforms", name, "agent"], `no agent "${agent}" under agents`);
      if (!Object.hasOwn(config.identityProviders, identityProvider))
        missing(["platforms", name, "identityProvider"], `no provider "${identityProvider}" under identityProviders`);
    }
    if (!Object.hasOwn(config.identityProviders, config.admins.identityProvider))
      missing(
        ["admins", "identityProvider"],
        `no provider "${config.admins.identityProvider}" under identityProviders`,
      );
    for (const [name, { identityProvider }] of Object.entries(config.transmitters))
      if (!Object.hasOwn(config.identityProviders, identityProvider))
        missing(
          ["transmitters", name, "identityProvider"],
          `no provider "${identityProvider}" under identityProviders`,
        );
    const issuerOf = (provider: string): string | undefined =>
      Object.hasOwn(config.identityProviders, provider) ? config.identityProviders[provider]?.issuer : undefined;
    for (const [name, { subjectAudience, identityProvider }] of Object.entries(config.platforms)) {
      // An admin's token must never be a human's subject token, nor the other way round, whatever the provider is called here.
      if (
        subjectAudience === config.admins.audience &&
        issuerOf(identityProvider) === issuerOf(config.admins.identityProvider)
      )
        missing(["platforms", name, "subjectAudience"], "the same as admins.audience: give each its own client");
    }
    const layers: [(string | number)[], readonly Entry[]][] = [
      [["boundaries"], config.boundaries],
      ...Object.entries(config.agents).map(([n, a]): [string[], readonly Entry[]] => [
        ["agents", n, "ceiling"],
        a.ceiling,
      ]),
      ...Object.entries(config.entitlements.groups).map(([n, e]): [string[], readonly Entry[]] => [
        ["entitlements", "groups", n],
        e,
      ]),
    ];
    for (const [path, layer] of layers)
      layer.forEach((entry, i) => {
        if (!Object.hasOwn(config.upstreams, entry.upstream))
          missing([...path, i, "upstream"], `no upstream "${entry.upstream}" under upstreams`);
      });
    for (const [name, { agents = [] }] of Object.entries(config.rules))
      agents.forEach((watched, i) => {
        if (!Object.hasOwn(config.agents, watched))
          missing(["rules", name, "agents", i], `no agent "${watched}" under agents`);
      });
    for (const [name, { forwardHeaders, credential }] of Object.entries(config.upstreams))
      forwardHeaders.forEach((header, i) => {
        const fault = findForwardingFault(header, credential.header);
        if (fault !== undefined) missing(["upstreams", name, "forwardHeaders", i], fault);
      });
    // Plain http is for a gate that itself runs on loopback; an origin that is no URL has been named already.
    if (!URL.canParse(config.origin) || isLoopback(new URL(config.origin))) return;
    const urls: [(string | number)[], string][] = [
      [["origin"], config.origin],
      ...Object.entries(config.upstreams).map(([n, u]): [string[], string] => [["upstreams", n, "baseUrl"], u.baseUrl]),
      ...Object.entries(config.identityProviders).flatMap(([n, p]): [string[], string][] => [
        [["identityProviders", n, "issuer"], p.issuer],
        [["identityProviders", n, "jwksUri"], p.jwksUri],
      ]),
      ...Object.entries(config.transmitters).flatMap(([n, t]): [string[], string][] => [
        [["transmitters", n, "issuer"], t.issuer],
        [["transmitters", n, "jwksUri"], t.jwksUri],
      ]),
    ];
    for (const [path, url] of urls)
      if (!url.startsWith("https:")) missing(path, "plain http is only for a gate that itself runs on loopback");
  });

/** One entry of a scope as a person writes it. The full grammar is checked when the configuration is read. */
export interface ScopeEntry {
  readonly type: "http";
  readonly upstream: string;
  readonly operations: readonly string[];
  readonly where?: Readonly<Record<string, Json>>;
}

export type Config = z.output<typeof configSchema>;
export type ConfigSource = Omit<z.input<typeof configSchema>, "agents" | "entitlements" | "boundaries"> & {
  readonly agents: Readonly<
    Record<string, Omit<z.input<typeof agent>, "ceiling"> & { readonly ceiling: readonly ScopeEntry[] }>
  >;
  readonly entitlements: { readonly groups: Readonly<Record<string, readonly ScopeEntry[]>> };
  readonly boundaries: readonly ScopeEntry[];
};
export type Limits = z.output<typeof limits>;
export type UpstreamConfig = z.output<typeof upstream>;
export type PlatformConfig = z.output<typeof platform>;
export type IdentityProviderConfig = z.output<typeof identityProvider>;
export type TransmitterConfig = z.output<typeof transmitter>;
export type Role = keyof Config["admins"]["roles"];

export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Checks a configuration whole. Throws one `ConfigError` that names the path of every mistake. */
export function defineConfig(source: ConfigSource): Config {
  const parsed = configSchema.safeParse(source);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map(
    (issue) => `  ${issue.path.map(String).join(".") || "(top)"}: ${issue.message}`,
  );
  throw new ConfigError(`The configuration is not valid:\n${lines.join("\n")}`);
}
