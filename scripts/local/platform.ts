// The side of the platform that sets agents to work: it presents a human's ID token at the gate's token endpoint, together with the
// proof that a new instance has made with its key (RFC 8693, RFC 9449 §5), and authenticates by `private_key_jwt` (RFC 7523).

import { randomUUID } from "node:crypto";
import { calculateJwkThumbprint, importJWK, SignJWT } from "jose";
import { z } from "zod";
import {
  createAgentFetch,
  createEnrolmentProof,
  createInstanceKey,
  type GrantTokens,
  type InstanceKey,
} from "../../src/agent/agent-fetch.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";
import type { Es256PrivateJwk } from "./secrets.ts";

export const platformName = "build-platform";

export interface Task {
  /** As the platform names it. */
  readonly id: string;
  readonly purpose: string;
  readonly deadlineMs: number;
}

export interface ProvisionOptions {
  /** The gate's origin. */
  readonly gate: string;
  readonly clientKey: Es256PrivateJwk;
  /** The human's, issued to this platform's client. */
  readonly idToken: string;
  readonly task: Task;
  readonly scope: readonly ScopeEntry[];
  /** Nothing: a fresh one. */
  readonly key?: InstanceKey;
}

/** One running copy of the agent, as its platform has set it up. */
export interface Instance {
  /** Its key's thumbprint. */
  readonly id: string;
  readonly key: InstanceKey;
  readonly grant: GrantTokens;
  /** What the agent's own code calls. */
  readonly fetch: typeof globalThis.fetch;
}

export interface TokenAnswer {
  readonly status: number;
  readonly body: unknown;
}

const tokens = z.object({
  access_token: z.string(),
  token_type: z.literal("DPoP"),
  expires_in: z.number().positive(),
  refresh_token: z.string(),
});
const refusal = z.object({ error: z.string(), error_description: z.string() });

/** Throws with the endpoint's own words where it refuses. */
export async function provision(options: ProvisionOptions): Promise<Instance> {
  const key = options.key ?? (await createInstanceKey());
  const { status, body } = await askForGrant({ ...options, key });
  if (status !== 200) throw new Error(`the token endpoint answered ${status}: ${JSON.stringify(body)}`);
  const grant = tokens.parse(body);
  const { gate } = options;
  return { id: await calculateJwkThumbprint(key.publicJwk), key, grant, fetch: createAgentFetch({ gate, key, grant }) };
}

/** The token exchange, with whatever comes of it. */
export async function askForGrant(options: ProvisionOptions): Promise<TokenAnswer> {
  const { gate, clientKey, idToken, task, scope } = options;
  const key = options.key ?? (await createInstanceKey());
  return askTokenEndpoint(gate, key, {
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: await clientAssertion(gate, clientKey),
    subject_token: idToken,
    subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
    task: task.id,
    purpose: task.purpose,
    deadline: String(Math.floor(task.deadlineMs / 1000)),
    agent_version: "1.4.0",
    authorization_details: JSON.stringify(scope),
  });
}

/** What `createAgentFetch` does ahead of the grant's expiry, on demand. */
export const askToRenew = (gate: string, { key, grant }: Instance): Promise<TokenAnswer> =>
  askTokenEndpoint(gate, key, { grant_type: "refresh_token", refresh_token: grant.refresh_token ?? "" });

/** Reads a refusal of the token endpoint (RFC 6749 §5.2). Throws where the answer is none. */
export const readRefusal = ({ body }: TokenAnswer): z.infer<typeof refusal> => refusal.parse(body);

async function askTokenEndpoint(
  gate: string,
  key: InstanceKey,
  parameters: Readonly<Record<string, string>>,
): Promise<TokenAnswer> {
  const response = await fetch(`${gate}/oauth/token`, {
    method: "POST",
    headers: { DPoP: await createEnrolmentProof(gate, key) },
    body: new URLSearchParams(parameters),
  });
  return { status: response.status, body: await response.json() };
}

async function clientAssertion(gate: string, key: Es256PrivateJwk): Promise<string> {
  return new SignJWT()
    .setProtectedHeader({ alg: "ES256", kid: key.kid })
    .setIssuer(platformName)
    .setSubject(platformName)
    .setAudience(gate)
    .setJti(randomUUID())
    .setIssuedAt()
    .setExpirationTime("2m")
    .sign(await importJWK(key, "ES256"));
}
