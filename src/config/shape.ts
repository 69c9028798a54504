import * as z from "zod";
import { admins } from "./admins.ts";
import { agent } from "./agents.ts";
import { approvals } from "./approval.ts";
import { entitlements } from "./entitlements.ts";
import { identityProvider, platform, transmitter } from "./identity.ts";
import { boundaries } from "./layers.ts";
import { mandates } from "./mandates.ts";
import { agentName, clientName, httpUrl, positive, secretName, transmitterName, upstreamName } from "./names.ts";
import { quota, quotaName } from "./quotas.ts";
import { retention } from "./retention.ts";
import { rule, ruleName } from "./rules.ts";
import { upstream } from "./upstream.ts";

const duration = {
  /** Life of an access token. */
  grantSeconds: positive.max(3600).default(300),
  /** The longest a task may be asked to last. */
  taskSeconds: positive.max(31_536_000).default(86_400),
};

/** Each part by itself. What must hold between them is in faults.ts. */
export const shape = z.strictObject({
  /** The gate's own origin: issuer of grants, and the base of every `htu` and `aud`. Never taken from a `Host` header. */
  origin: httpUrl.refine(
    (text) => URL.canParse(text) && new URL(text).origin === text,
    "an origin, e.g. https://gate.example.com",
  ),
  identityProviders: z.record(z.string(), identityProvider),
  platforms: z.record(clientName, platform),
  agents: z.record(agentName, agent),
  upstreams: z.record(upstreamName, upstream),
  /** What humans may do, by group of the identity provider and by name. Who is in none may do nothing. */
  entitlements,
  /** What anyone in the organisation may do through agents at all. */
  boundaries,
  approvals: approvals.prefault({}),
  admins,
  /** Left out: no mandate is taken. */
  mandates: mandates.optional(),
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
  /** Limits that instances share. */
  quotas: z.record(quotaName, quota).default({}),
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
});

export type Config = z.output<typeof shape>;
