import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { onTestFinished, vi } from "vitest";
import type { AgentInstance } from "../../durable-objects/agent-instance.ts";
import type { ApprovalDesk } from "../../durable-objects/approval-desk.ts";
import type { Retention } from "../../durable-objects/retention.ts";
import type { Roster } from "../../durable-objects/roster.ts";
import type { Switchboard } from "../../durable-objects/switchboard.ts";
import type { InstanceKey } from "../../src/agent/instance-key.ts";
import type { FlipRequest, FlipState, OpenRequest } from "../../src/control/contract.ts";
import { shardOf } from "../../src/control/shard.ts";
import type { Switch } from "../../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../../src/deployment.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { issueGrant } from "../../src/grant/claims.ts";
import { parsePublicKey } from "../../src/grant/jwk.ts";
import type { AdmitRequest, Enrolment, Settlement } from "../../src/instance/contract.ts";
import { instanceOf, type JournalDoor, journalOf, switchboardOf } from "../../src/objects.ts";
import config, { ORIGIN } from "./config.ts";

/** An instance with its key, inside of workerd: enrolled by RPC, calling through the Worker's own fetch handler. */
export const deployment: Deployment = parseDeployment(env as unknown as Env, config);

export const SCOPE = [
  {
    type: "http",
    upstream: "github",
    operations: [
      "GET /repos/{owner}/{repo}/issues",
      "GET /repos/{owner}/{repo}/contents/{+path}",
      "POST /repos/{owner}/{repo}/issues/{number}/comments",
      "PUT /repos/{owner}/{repo}/contents/{+path}",
    ],
    where: { owner: ["acme"] },
  },
];
export const ISSUES = "/github/repos/acme/widgets/issues";

const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));

export interface Agent {
  readonly id: string;
  readonly key: InstanceKey;
  readonly enrolment: Enrolment;
  readonly token: string;
  readonly grant: { readonly id: string; readonly expiresAtMs: number };
  prove(method: string, path: string, claims?: object): Promise<string>;
  /** A request with a proof of its own. */
  call(path: string, init?: RequestInit & { readonly proof?: string }): Promise<Response>;
  /** The admission of a GET of the issues, as the gate would ask for it. */
  admission(change?: Partial<AdmitRequest>): AdmitRequest;
}

export async function enrolAgent(change: Partial<Enrolment> = {}): Promise<Agent> {
  const { privateKey, publicKey } = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  const { x, y } = (await crypto.subtle.exportKey("jwk", publicKey)) as JsonWebKey & { x: string; y: string };
  const jwk = { kty: "EC", crv: "P-256", x, y };
  const id = parsePublicKey("ES256", jwk)!.thumbprint;
  const nowMs = Date.now();
  const enrolment: Enrolment = {
    instance: id,
    human: "human-1",
    emailDigest: null,
    agent: "triage-bot",
    agentVersion: "1.0.0",
    manifest: { model: "m", promptDigest: "sha256:0", tools: {} },
    client: "build-platform",
    chain: [{ client: "build-platform", agent: change.agent ?? "triage-bot", agentVersion: "1.0.0", instance: id }],
    ancestors: [],
    parentScope: null,
    groupsAtMs: nowMs,
    mandate: null,
    rosterShard: shardOf(id, deployment.config.roster.shards),
    task: { id: "build-platform_t1", purpose: "test", deadlineMs: nowMs + 3_600_000 },
    grant: "grant-1",
    subject: "subject-1",
    scope: SCOPE,
    groups: ["engineering"],
    limits: deployment.config.agents["triage-bot"]!.limits,
    refreshDigest: "digest-1",
    ...change,
  };
  const answer = await instanceOf(deployment, id).enrol({
    enrolment,
    humanClaims: { email: "ada@acme.example" },
    proof: { jti: crypto.randomUUID(), issuedAtMs: nowMs },
    deployment: "test",
  });
  if (!answer.enrolled) throw new Error(`not enrolled: ${answer.reason}`);
  const expiresAtMs = nowMs - (nowMs % 1000) + 300_000;
  const token = issueGrant(deployment.grantKeys, {
    iss: ORIGIN,
    sub: "subject-1",
    aud: [`${ORIGIN}/github`],
    client_id: "build-platform",
    jti: "grant-1",
    iat: Math.floor(nowMs / 1000),
    exp: expiresAtMs / 1000,
    cnf: { jkt: id },
    authorization_details: SCOPE,
  });
  const ath = encodeBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(token))));
  const prove = async (method: string, path: string, claims: object = {}): Promise<string> => {
    const payload = {
      jti: crypto.randomUUID(),
      htm: method,
      htu: ORIGIN + path.split("?")[0],
      iat: Math.floor(Date.now() / 1000),
      ath,
      ...claims,
    };
    const input = `${part({ typ: "dpop+jwt", alg: "ES256", jwk })}.${part(payload)}`;
    const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, privateKey, utf8.encode(input));
    return `${input}.${encodeBase64url(new Uint8Array(signature))}`;
  };
  const call: Agent["call"] = async (path, init = {}) => {
    const { proof, ...rest } = init;
    const headers = new Headers(rest.headers);
    headers.set("authorization", `DPoP ${token}`);
    headers.set("dpop", proof ?? (await prove(rest.method ?? "GET", path)));
    return exports.default.fetch(new Request(ORIGIN + path, { ...rest, headers }));
  };
  const admission: Agent["admission"] = (change = {}) => ({
    grant: { id: "grant-1", expiresAtMs },
    proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
    call: {
      upstream: "github",
      method: "GET",
      segments: ["repos", "acme", "widgets", "issues"],
      query: [],
      body: { kind: "none" },
    },
    denial: null,
    permit: { entry: 0, operation: SCOPE[0]!.operations[0]! },
    request: { method: "GET", target: ISSUES, headers: [], body: new Uint8Array(0), bodyFollows: false },
    deployment: "test",
    ...change,
  });
  const key: InstanceKey = { privateKey, publicJwk: { ...jwk, kty: "EC", crv: "P-256" } };
  return { id, key, enrolment, token, grant: { id: "grant-1", expiresAtMs }, prove, call, admission };
}

/** The objects themselves, for what a test does inside of them. */
export const instanceStub = (id: string) =>
  env.AGENT_INSTANCE.get(env.AGENT_INSTANCE.idFromName(id)) as DurableObjectStub<AgentInstance>;
export const rosterStub = (shard: number) =>
  env.ROSTER.get(env.ROSTER.idFromName(String(shard))) as DurableObjectStub<Roster>;
export const retentionStub = () =>
  env.RETENTION.get(env.RETENTION.idFromName("retention")) as DurableObjectStub<Retention>;
export const deskStub = () =>
  env.APPROVAL_DESK.get(env.APPROVAL_DESK.idFromName("approvals")) as DurableObjectStub<ApprovalDesk>;
export const boardStub = () =>
  env.SWITCHBOARD.get(env.SWITCHBOARD.idFromName("switchboard")) as DurableObjectStub<Switchboard>;

/** A kill of everything, unless it says otherwise: as the switchboard gets it. */
export const flipRequest = (change: Partial<FlipRequest> = {}): FlipRequest => ({
  id: crypto.randomUUID(),
  reach: "everything",
  target: {},
  act: "kill",
  reason: "test",
  by: "admin",
  email: null,
  cause: null,
  untilMs: null,
  idempotencyKey: null,
  ...change,
});

export async function flip(change: Partial<FlipRequest> = {}): Promise<FlipState> {
  const answer = await switchboardOf(deployment).flip(flipRequest(change));
  if (!answer.flipped) throw new Error("not flipped");
  return answer.state;
}
/** Why the next call would be refused; else "admitted", and it is over at once. */
export async function verdictOf(agent: Agent): Promise<string> {
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
  if (!admission.admitted) return "reason" in admission.denial ? admission.denial.reason : admission.denial.kind;
  await admission.lease.settle(settlement());
  admission.lease[Symbol.dispose]?.();
  return "admitted";
}

/** Until the test is over runs are appended by their size alone, and not because a second has passed: a busy machine takes longer. */
export function appendBySizeAlone(): void {
  const transcripts = deployment.config.transcripts as { streamLeadMs: number };
  const { streamLeadMs } = transcripts;
  transcripts.streamLeadMs = 60_000;
  onTestFinished(() => {
    transcripts.streamLeadMs = streamLeadMs;
  });
}

export const settlement = (change: Partial<Settlement> = {}): Settlement => ({
  outcome: "complete",
  head: { status: 200, headers: [], mediaType: "application/json", coding: "identity" },
  tail: utf8.encode("{}"),
  passedBytes: 0,
  heldBytes: 2,
  forwardedBytes: 0,
  timing: { startedAtMs: 1, firstByteAtMs: 2, lastByteAtMs: 2, endedAtMs: 3 },
  reason: null,
  ...change,
});

export const operator = (by = "operator-1"): OpenRequest => ({ by, email: null, reason: "test" });

/** The same as it is booked and pushed. */
export const switchOf = (change: Partial<Switch> = {}): Switch => ({
  id: crypto.randomUUID(),
  reach: "everything",
  target: {},
  act: "kill",
  reason: "test",
  by: "admin",
  cause: null,
  atMs: Date.now(),
  untilMs: null,
  ...change,
});

/** One whose confirmation has run out: it must ask before its next call. Its roster believes the same. */
export async function enrolIdle(change: Partial<Enrolment> = {}): Promise<Agent> {
  const agent = await enrolAgent(change);
  const stub = rosterStub(agent.enrolment.rosterShard);
  await runInDurableObject(stub, (_roster, { storage }) => {
    storage.sql.exec("UPDATE members SET confirmed_until_ms = 1 WHERE instance = ?", agent.id);
  });
  await evictDurableObject(stub);
  await evictDurableObject(instanceStub(agent.id));
  return agent;
}

/** What the upstream does. Only outbound requests come here: the Worker is called by its handler, not by fetch. */
export function upstream(answer: (request: Request) => Response | Promise<Response>) {
  return vi
    .spyOn(globalThis, "fetch")
    .mockImplementation(async (input, init) => answer(new Request(input as RequestInfo, init as RequestInit)));
}

export interface Line {
  readonly type: string;
  readonly seq: number;
  readonly [field: string]: unknown;
}

/** Records that have not left for R2. */
export async function recordsOf(agent: Agent): Promise<readonly Line[]> {
  const read = await instanceOf(deployment, agent.id).read(0, 10_000);
  return (read?.lines ?? []).map((line) => JSON.parse(line) as Line).filter(({ type }) => type !== "seal");
}

/** Pushes the type of each record, and of each seal, when its row is written. Until mocks are restored. */
export function watchRecords(sql: SqlStorage, types: string[]): void {
  const exec = sql.exec.bind(sql);
  vi.spyOn(sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
    const line = bindings.find((one) => typeof one === "string" && one.startsWith('{"v":'));
    if (line !== undefined) types.push((JSON.parse(line as string) as { type: string }).type);
    if (bindings[0] === "segment" && String(bindings[2]).includes('"stage":0')) types.push("seal");
    return exec(query, ...bindings);
  }) as typeof sql.exec);
}

/** Lines of a journal that have not left for R2; of the days before and after, too: a day may end in the middle of a test. */
export async function journalLines(door: JournalDoor): Promise<readonly Line[]> {
  const days = [-1, 0, 1].map((day) => journalOf(deployment, door, Date.now() + day * 86_400_000).read(0, 10_000));
  return (await Promise.all(days)).flat().map((line) => JSON.parse(line) as Line);
}

export const typesOf = (lines: readonly Line[]): string => lines.map(({ type }) => type).join(" ");
