import * as z from "zod";
import { secretsOf } from "./config/credential.ts";
import type { Config } from "./config/define.ts";
import { GRANT_ALGORITHMS, KeyRing, SEAL_ALGORITHMS } from "./grant/keys.ts";
import { requireSecret } from "./upstream/read-secret.ts";

/** Raw bindings, as wrangler.toml declares them. */
export interface Env {
  readonly AGENT_INSTANCE: DurableObjectNamespace;
  readonly ROSTER: DurableObjectNamespace;
  readonly SWITCHBOARD: DurableObjectNamespace;
  readonly JOURNAL: DurableObjectNamespace;
  readonly RETENTION: DurableObjectNamespace;
  readonly QUOTA: DurableObjectNamespace;
  readonly MANDATE_BOOK: DurableObjectNamespace;
  readonly MANDATE_INDEX: DurableObjectNamespace;
  readonly APPROVAL_DESK: DurableObjectNamespace;
  readonly CREDENTIAL_BROKER: DurableObjectNamespace;
  readonly TRANSCRIPTS: R2Bucket;
  readonly VERSION?: { readonly id: string };
  readonly [name: string]: unknown;
}

/** A configuration together with the environment it runs in, checked once for each isolate. */
export interface Deployment {
  readonly config: Config;
  readonly version: string;
  readonly grantKeys: KeyRing;
  readonly sealKeys: KeyRing;
  readonly env: Env;
}

const known = new WeakMap<object, Deployment>();
let newest: Deployment | undefined;

/** Throws where a secret that the configuration names is missing or malformed: then no door opens. */
export function parseDeployment(env: Env, config: Config): Deployment {
  const cached = known.get(env) ?? reusable(env, config);
  if (cached !== undefined) return cached;
  const deployment: Deployment = {
    config,
    version: z.object({ id: z.string().min(1) }).safeParse(env.VERSION).data?.id ?? "local",
    grantKeys: new KeyRing(readSecret(env, config.secrets.grantKeys), config.secrets.grantKeys, GRANT_ALGORITHMS),
    sealKeys: new KeyRing(readSecret(env, config.secrets.sealKeys), config.secrets.sealKeys, SEAL_ALGORITHMS),
    env,
  };
  for (const upstream of Object.values(config.upstreams))
    for (const use of secretsOf(upstream.credential)) requireSecret(env, use);
  const { webhook } = config.approvals;
  if (webhook !== undefined) requireSecret(env, { name: webhook.secret, form: "webhook" });
  const digests = [
    ...Object.values(config.admins.breakGlass),
    ...Object.values(config.transmitters).map(({ authorization }) => authorization),
  ];
  for (const name of digests)
    if (!/^[0-9a-f]{64}$/.test(readSecret(env, name))) throw new Error(`secret ${name} is not a SHA-256 in hex`);
  known.set(env, deployment);
  newest = deployment;
  return deployment;
}

/** The runtime may hand every object an `env` of its own, with the same secrets: keys are imported once all the same. */
function reusable(env: Env, config: Config): Deployment | undefined {
  if (newest === undefined || newest.config !== config) return undefined;
  const names = [config.secrets.grantKeys, config.secrets.sealKeys];
  if (names.some((name) => newest?.env[name] !== env[name])) return undefined;
  return { ...newest, env };
}

function readSecret(env: Env, name: string): string {
  const value = env[name];
  if (typeof value !== "string" || value === "") throw new Error(`secret ${name} is not set`);
  return value;
}
