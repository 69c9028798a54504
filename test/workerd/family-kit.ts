import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { exports } from "cloudflare:workers";
import { vi } from "vitest";
import type { AgentInstance } from "../../durable-objects/agent-instance.ts";
import {
  createAgentFetch,
  createInstanceKey,
  type GrantTokens,
  type InstanceKey,
  thumbprintOf,
} from "../../src/agent/agent-fetch.ts";
import { createHeldGrant, type HeldGrant } from "../../src/agent/held-grant.ts";
import { createProof } from "../../src/agent/instance-key.ts";
import type { Enrolment } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import config, { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, ISSUES, instanceStub, type Line, SCOPE } from "./kit.ts";

/** Instances and their children, provisioned at the token endpoint as an agent does it. */

export const send: typeof fetch = (input, init) =>
  exports.default.fetch(new Request(input as RequestInfo, init as RequestInit));
export const TOKEN_URL = `${ORIGIN}/oauth/token`;

export interface Node {
  readonly id: string;
  readonly key: InstanceKey;
  readonly token: string;
  readonly refresh: string | undefined;
  readonly held: HeldGrant;
  /** The status of a call through the gate. The upstream is the test's to mock. */
  call(path?: string): Promise<number>;
}

function nodeOf(id: string, key: InstanceKey, grant: GrantTokens): Node {
  const options = { gate: ORIGIN, key, grant, fetch: send };
  const asked = createAgentFetch(options);
  return {
    id,
    key,
    token: grant.access_token,
    refresh: grant.refresh_token,
    held: createHeldGrant(options),
    call: async (path = ISSUES) => {
      const answer = await asked(ORIGIN + path);
      await answer.text();
      return answer.status;
    },
  };
}

export const LEAD = config.agents["lead"]!.limits;

/** Whom a platform has provisioned. */
export async function rootOf(change: Partial<Enrolment> = {}): Promise<Node & { readonly agent: Agent }> {
  const deadlineMs = Math.ceil(Date.now() / 1000) * 1000 + 3_600_000;
  const agent = await enrolAgent({
    agent: "lead",
    limits: LEAD,
    task: { id: "build-platform_t1", purpose: "test", deadlineMs },
    ...change,
  });
  return { agent, ...nodeOf(agent.id, agent.key, { access_token: agent.token, expires_in: 300 }) };
}

export const READ = [{ ...SCOPE[0]!, operations: ["GET /repos/{owner}/{repo}/issues"] }];

export interface Spoilt {
  readonly key?: InstanceKey;
  readonly form?: Readonly<Record<string, string | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A child's request as it is sent, right unless it is spoilt. */
export async function askFor(parent: Node, { key: given, form = {}, headers = {} }: Spoilt = {}) {
  const key = given ?? (await createInstanceKey());
  const id = await thumbprintOf(key);
  const fields: Record<string, string | undefined> = {
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    ...(await parent.held.delegate(id)),
    agent: "lead",
    agent_version: "1.0.0",
    purpose: "a part of it",
    authorization_details: JSON.stringify(SCOPE),
    ...form,
  };
  const body = new URLSearchParams(
    Object.entries(fields).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
  const answer = await send(TOKEN_URL, {
    method: "POST",
    body,
    headers: { DPoP: await createProof(key, "POST", TOKEN_URL), ...headers },
  });
  const json = (await answer.json()) as Record<string, unknown>;
  return { id, key, status: answer.status, json };
}

/** "granted", or the error and its description. */
export const said = ({ status, json }: { readonly status: number; readonly json: Record<string, unknown> }): string =>
  status === 200 ? "granted" : `${json["error"]}: ${json["error_description"]}`;

export async function childOf(parent: Node, form: Spoilt["form"] = {}): Promise<Node> {
  const answer = await askFor(parent, { form });
  if (answer.status !== 200) throw new Error(said(answer));
  return nodeOf(answer.id, answer.key, answer.json as unknown as GrantTokens);
}

export const enrolmentOf = async (id: string): Promise<Enrolment> =>
  (await instanceOf(deployment, id).introspect()).enrolment!;

/** All records, wherever they are: none of these lives is longer than a segment. */
export async function linesOf(id: string): Promise<readonly Line[]> {
  const read = await instanceOf(deployment, id).read(0, 10_000);
  return (read?.lines ?? []).map((line) => JSON.parse(line) as Line).filter(({ type }) => type !== "seal");
}

/** Its alarm, as at a later time; what it began beside is waited for. */
export async function alarmAt(id: string, atMs: number): Promise<void> {
  await runInDurableObject(instanceStub(id), async (object: AgentInstance) => {
    const clock = vi.spyOn(Date, "now").mockReturnValue(atMs);
    await object.alarm();
    clock.mockRestore();
  });
}

export const ring = (id: string) => runDurableObjectAlarm(instanceStub(id));
export const isStopped = async (id: string): Promise<boolean> =>
  (await instanceOf(deployment, id).introspect()).state === "inactive";

/** What is done beside, or by an alarm: on a busy machine it takes its time. */
export const soon = (what: () => Promise<void> | void): Promise<void> => vi.waitFor(what, 10_000);
