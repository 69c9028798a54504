// Mandates inside of workerd: approved by RPC, and exchanged by the function that the token endpoint calls once it knows the client.

import { exchange, TOKEN_EXCHANGE } from "../../src/authority/exchange.ts";
import type { Form } from "../../src/authority/form.ts";
import { MANDATE } from "../../src/authority/mandate-subject.ts";
import type { TokenAnswer } from "../../src/authority/token-answer.ts";
import type { Proof } from "../../src/grant/proof.ts";
import type { Mandate } from "../../src/mandate/contract.ts";
import { issueMandateToken } from "../../src/mandate/token.ts";
import { mandateBookOf } from "../../src/objects.ts";
import { deployment, SCOPE } from "./kit.ts";

export const somebody = () => `human-${crypto.randomUUID()}`;
export const mandateOf = (change: Partial<Mandate> = {}): Mandate => {
  const nowMs = Date.now();
  return {
    id: crypto.randomUUID(),
    human: somebody(),
    emailDigest: null,
    groups: ["engineering"],
    groupsAtMs: nowMs,
    approvedAtMs: nowMs,
    agent: "triage-bot",
    platform: "build-platform",
    scope: SCOPE,
    purpose: "every night",
    schedule: null,
    notBeforeMs: nowMs,
    expiresAtMs: nowMs + 3_600_000,
    taskSeconds: 600,
    limits: { calls: null, bytes: null },
    maxUses: null,
    perDay: null,
    ...change,
  };
};

/** A stub made anew each time: one whose object was reset stays broken. */
export const bookOf = ({ human }: Pick<Mandate, "human">) => mandateBookOf(deployment, human);

export async function approve(change: Partial<Mandate> = {}): Promise<Mandate> {
  const mandate = mandateOf(change);
  const answer = await bookOf(mandate).approve(mandate);
  if (!answer.approved) throw new Error(`not approved: ${answer.reason}`);
  return mandate;
}

export const revoke = (mandate: Mandate) =>
  bookOf(mandate).revoke(mandate.id, { by: mandate.human, email: null, reason: "a test" });

export interface Exchanged {
  /** "granted", or what the token endpoint would say. */
  readonly verdict: string;
  readonly instance: string;
  readonly answer: TokenAnswer | null;
}

export const instanceId = () => crypto.randomUUID();

export async function exchangeMandate(
  mandate: Mandate,
  {
    form = {},
    client = "build-platform",
    instance = instanceId(),
    token,
    nowMs = Date.now(),
  }: {
    readonly form?: Readonly<Record<string, string>>;
    readonly client?: string;
    readonly instance?: string;
    readonly token?: string;
    readonly nowMs?: number;
  } = {},
): Promise<Exchanged> {
  const values: Readonly<Record<string, string>> = {
    grant_type: TOKEN_EXCHANGE,
    subject_token: token ?? issueMandateToken(deployment, mandate),
    subject_token_type: MANDATE,
    task: "t-1",
    deadline: String(Math.floor(nowMs / 1000) + 60),
    agent_version: "1.0.0",
    authorization_details: JSON.stringify(SCOPE),
    ...form,
  };
  const sent: Form = { get: (name) => values[name], all: (name) => (values[name] === undefined ? [] : [values[name]]) };
  const platform = deployment.config.platforms["build-platform"]!;
  const proof = { thumbprint: instance, jti: crypto.randomUUID(), issuedAtMs: nowMs } as unknown as Proof;
  const answer = await exchange(sent, { id: client, platform }, proof, deployment, nowMs);
  return answer.ok
    ? { verdict: "granted", instance, answer: answer.value }
    : { verdict: `${answer.error.code}: ${answer.error.description}`, instance, answer: null };
}
