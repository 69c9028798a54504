// An instance provisions sub-agents at the token endpoint: what they are, and everything that must be refused.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { createInstanceKey, delegate, requestSubAgentGrant, SubAgentRefused } from "../../src/agent/agent-fetch.ts";
import { createDelegationProof, createProof, thumbprintOf } from "../../src/agent/instance-key.ts";
import { verifyGrant } from "../../src/grant/claims.ts";
import { instanceOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import {
  askFor,
  childOf,
  enrolmentOf,
  linesOf,
  type Node,
  READ,
  rootOf,
  said,
  send,
  soon,
  TOKEN_URL,
} from "./family-kit.ts";
import { deployment, flip, ISSUES, SCOPE, upstream } from "./kit.ts";

beforeEach(() => void upstream(() => Response.json([])));
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 30_000 });

const ACCESS = "urn:ietf:params:oauth:token-type:access_token";
const json = JSON.stringify;

describe("a sub-agent", () => {
  it("is its parent's: human, client, task, groups, mandate; with its own key, agent, version and manifest", async () => {
    const root = await rootOf({ mandate: "m-1" });
    const child = await childOf(root, {
      agent: "summariser",
      agent_version: "2.0.0",
      authorization_details: json(READ),
    });
    const [above, below] = [await enrolmentOf(root.id), await enrolmentOf(child.id)];
    for (const name of ["human", "emailDigest", "client", "groups", "groupsAtMs", "mandate"] as const)
      expect([name, below[name]]).toEqual([name, above[name]]);
    expect(below).toMatchObject({
      instance: child.id,
      agent: "summariser",
      agentVersion: "2.0.0",
      manifest: { model: "s", promptDigest: "sha256:1" },
      task: { id: above.task.id, purpose: "a part of it", deadlineMs: above.task.deadlineMs },
      ancestors: [root.id],
      parentScope: SCOPE,
      scope: READ,
      chain: [
        { client: "build-platform", agent: "lead", agentVersion: "1.0.0", instance: root.id },
        { client: "build-platform", agent: "summariser", agentVersion: "2.0.0", instance: child.id },
      ],
    });
    expect(below.subject).not.toBe(above.subject);
    expect(await child.call()).toBe(200);
    // What it holds says nothing of who sent it.
    const claims = JSON.parse(atob(child.token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/")));
    expect(Object.keys(claims).sort()).toEqual(
      ["aud", "authorization_details", "client_id", "cnf", "exp", "iat", "iss", "jti", "sub"].sort(),
    );
  });

  it("stands in its parent's record before it stands in its own, and every record of it names the chain", async () => {
    const root = await rootOf();
    const child = await childOf(root, { task_limits: '{"calls":7,"bytes":1000}' });
    await child.call();
    const delegated = (await linesOf(root.id)).at(-1);
    const lines = await linesOf(child.id);
    expect(delegated).toMatchObject({
      type: "delegated",
      act: "delegate",
      child: child.id,
      childAgent: "lead",
      childAgentVersion: "1.0.0",
      childGrant: lines[0]!["grant"],
      purpose: "a part of it",
      scope: SCOPE,
      limits: { calls: 7, bytes: 1_000 },
    });
    expect(lines.map(({ type }) => type)).toEqual(["enrolled", "call", "answer"]);
    expect(lines[0]).toMatchObject({ parent: root.id, limits: { calls: 7, bytes: 1_000 } });
    expect(delegated!["at"] as number).toBeLessThanOrEqual(lines[0]!["at"] as number);
    for (const line of lines)
      expect((line["chain"] as { instance: string }[]).map(({ instance }) => instance)).toEqual([root.id, child.id]);
  });

  it("is bounded at run time by its parent's scope, as a layer that its record names", async () => {
    const root = await rootOf();
    const child = await childOf(root);
    await child.call();
    const call = (await linesOf(child.id)).find(({ type }) => type === "call");
    expect((call!["decision"] as { ceilings: object[] }).ceilings[0]).toMatchObject({
      layer: "parent",
      at: "parent[0]",
    });
  });

  it("renews by itself, calls with its own key alone, and gives its own grant back", async () => {
    const root = await rootOf();
    const child = await childOf(root);
    expect(await child.held.renew()).toBe("renewed");
    const stolen = await send(ORIGIN + ISSUES, {
      headers: {
        authorization: `DPoP ${child.token}`,
        dpop: await createProof(root.key, "GET", ORIGIN + ISSUES, child.token),
      },
    });
    expect(stolen.status).toBe(401);
    expect(await child.held.revoke()).toBe(true);
    expect(await child.call()).toBe(401);
    expect(await root.call()).toBe(200);
  });

  it("is made with the two helpers of portcullis/agent, which say why the gate refused", async () => {
    const root = await rootOf();
    const request = { agent: "lead", agentVersion: "1.0.0", purpose: "p", authorizationDetails: READ };
    const key = await createInstanceKey();
    const delegated = await delegate(root.held, await thumbprintOf(key));
    const options = { gate: ORIGIN, key, delegated, request, fetch: send };
    expect(await requestSubAgentGrant(options)).toMatchObject({ token_type: "DPoP", authorization_details: READ });
    const error = await requestSubAgentGrant(options).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(SubAgentRefused);
    expect(String(error)).toContain("invalid_request");
    const tooMuch = { ...request, deadline: 99_999_999_999 };
    const other = { ...options, key: await createInstanceKey(), request: tooMuch };
    other.delegated = await delegate(root.held, await thumbprintOf(other.key));
    await expect(requestSubAgentGrant(other)).rejects.toThrow("deadline is later");
  });

  it("goes three levels down, and no further than anyone above allows", async () => {
    const limits = { task_limits: '{"concurrency":20,"burst":50,"callsPerSecond":50}' };
    const root = await rootOf();
    const one = await childOf(root, { task_limits: '{"concurrency":60,"burst":300,"callsPerSecond":300}' });
    const two = await childOf(one, limits);
    const three = await childOf(two, { task_limits: '{"concurrency":5,"burst":5,"callsPerSecond":5}' });
    expect((await enrolmentOf(three.id)).ancestors).toEqual([root.id, one.id, two.id]);
    expect(await three.call()).toBe(200);
    expect(said(await askFor(three))).toBe("invalid_request: delegation: as deep as it may go");
    // A clerk's own bound is one level, whatever its parent's is.
    const clerk = await childOf(root, { agent: "clerk", task_limits: '{"concurrency":5,"burst":9}' });
    const under = await childOf(clerk, { agent: "clerk", task_limits: '{"concurrency":2,"burst":4}' });
    expect(said(await askFor(under, { form: { agent: "clerk" } }))).toBe(
      "invalid_request: delegation: as deep as it may go",
    );
  });
});

describe("refused is a sub-agent", () => {
  const cases: [name: string, form: Record<string, string | undefined>, reason: string][] = [
    ["without an agent", { agent: undefined }, "invalid_request: agent is missing"],
    [
      "of an agent that its parent may not provision",
      { agent: "triage-bot" },
      "invalid_request: agent: not one that the parent may provision",
    ],
    [
      "of an agent that is not registered",
      { agent: "nobody" },
      "invalid_request: agent: not one that the parent may provision",
    ],
    [
      "of an agent called constructor",
      { agent: "constructor" },
      "invalid_request: agent: not one that the parent may provision",
    ],
    [
      "of a version of another agent",
      { agent_version: "2.0.0" },
      "invalid_request: agent_version is not registered for this agent",
    ],
    ["for another task", { task: "t2" }, "invalid_request: task: not the parent's"],
    ["for its task by its whole id", { task: "build-platform_t1" }, "invalid_request: task: not the parent's"],
    ["without a purpose", { purpose: undefined }, "invalid_request: purpose must be 1 to 1000 characters"],
    ["with a scope of its own", { scope: "all" }, "invalid_scope: scope is stated in authorization_details"],
    ["with a proof by nobody", { subject_token_proof: undefined }, "invalid_request: subject_token_proof is missing"],
    [
      "with a proof that is none",
      { subject_token_proof: "a.b.c" },
      "invalid_request: subject_token_proof: not canonical base64url",
    ],
    [
      "with a subject token that is none",
      { subject_token: "a.b.c" },
      "invalid_request: subject_token: not canonical base64url",
    ],
    ["without a subject token", { subject_token: undefined }, "invalid_request: subject_token is missing"],
    [
      "of an unknown kind of subject",
      { subject_token_type: "constructor" },
      "invalid_client: client authentication failed",
    ],
    [
      "with an actor",
      { actor_token: "a", actor_token_type: ACCESS },
      "invalid_request: the actor is the instance, by its DPoP key",
    ],
    [
      "that would act beyond the parent's operations",
      { authorization_details: json([{ ...SCOPE[0], operations: ["DELETE /repos/{owner}/{repo}"] }]) },
      "invalid_authorization_details: authorization_details[0]: 'DELETE /repos/{owner}/{repo}' exceeds the parent's grant",
    ],
    [
      "that would act beyond the parent's places",
      { authorization_details: json([READ[0], { ...READ[0], where: { owner: ["other"] } }]) },
      "invalid_authorization_details: authorization_details[1]: 'GET /repos/{owner}/{repo}/issues' exceeds the parent's grant",
    ],
    [
      "that would act without the parent's conditions",
      { authorization_details: json([{ ...READ[0], where: {} }]) },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the parent's grant",
    ],
    [
      "at another upstream",
      { authorization_details: json([{ ...READ[0], upstream: "slack" }]) },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the parent's grant",
    ],
    [
      "beyond its own agent's ceiling",
      { agent: "summariser", agent_version: "2.0.0" },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/contents/{+path}' exceeds the agent's ceiling",
    ],
    [
      "with more calls than are left",
      { task_limits: '{"calls":10001}' },
      "invalid_request: task_limits: calls exceeds what the parent has left",
    ],
    [
      "with more bytes than are left",
      { task_limits: '{"bytes":1073741825}' },
      "invalid_request: task_limits: bytes exceeds what the parent has left",
    ],
    [
      "with all the concurrency",
      { task_limits: '{"concurrency":200}' },
      "invalid_request: task_limits: concurrency exceeds what the parent has left",
    ],
    [
      "with all the rate",
      { task_limits: '{"callsPerSecond":1000}' },
      "invalid_request: task_limits: callsPerSecond exceeds what the parent has left",
    ],
    [
      "with more of a unit than is left",
      { task_limits: '{"units":{"usd":501}}' },
      "invalid_request: task_limits: units.usd exceeds what the parent has left",
    ],
  ];
  it.each(cases)("%s", async (_name, form, reason) => {
    const root = await rootOf();
    const answer = await askFor(root, { form });
    expect(said(answer)).toBe(reason);
    // Nothing is on record, nothing reserved, and the key is free.
    expect((await linesOf(root.id)).map(({ type }) => type)).toEqual(["enrolled"]);
    expect((await instanceOf(deployment, answer.id).introspect()).enrolment).toBeNull();
  });

  it("that would outlive its parent", async () => {
    const root = await rootOf();
    const last = root.agent.enrolment.task.deadlineMs / 1000;
    expect(said(await askFor(root, { form: { deadline: String(last + 1) } }))).toBe(
      "invalid_request: deadline: later than the parent's own end",
    );
    expect(said(await askFor(root, { form: { deadline: String(last) } }))).toBe("granted");
  });

  it("that would outlive a parent's grant which can't be renewed", async () => {
    const root = await rootOf({ refreshDigest: null });
    const last = root.agent.grant.expiresAtMs / 1000;
    expect(said(await askFor(root, { form: { deadline: String(last + 1) } }))).toBe(
      "invalid_request: deadline: later than the parent's own end",
    );
    const child = await childOf(root);
    expect((await enrolmentOf(child.id)).task.deadlineMs).toBe(last * 1000);
  });

  it("that would do for its parent's agent what this may do no more", async () => {
    // Granted before a deployment has narrowed the ceiling.
    const root = await rootOf({ agent: "chief" });
    const BEYOND = "invalid_authorization_details: authorization_details[0] exceeds the ceiling of the parent's agent";
    expect(said(await askFor(root))).toBe(BEYOND);
    expect(said(await askFor(root, { form: { authorization_details: json(READ) } }))).toBe("granted");
  });

  it("with a key that was enrolled before, its parent's and an ancestor's among them", async () => {
    const root = await rootOf();
    const child = await childOf(root, { task_limits: '{"concurrency":9}' });
    const KNOWN = "invalid_request: this key is known already: every sub-agent needs a key of its own";
    expect(said(await askFor(root, { key: root.key }))).toBe(KNOWN);
    expect(said(await askFor(child, { key: child.key }))).toBe(KNOWN);
    expect(said(await askFor(child, { key: root.key }))).toBe(KNOWN);
    expect(said(await askFor(root, { key: child.key }))).toBe(KNOWN);
    const stranger = await rootOf();
    const ENROLLED = "invalid_request: this key is enrolled already: every instance needs a key of its own";
    expect(said(await askFor(root, { key: stranger.key }))).toBe(ENROLLED);
    // A stranger that was named goes on as it was, and what was reserved for it comes back.
    await soon(async () =>
      expect((await linesOf(root.id)).at(-1)).toMatchObject({ act: "return", child: stranger.id }),
    );
    expect(await stranger.call()).toBe(200);
  });
});

describe("the parent's proof", () => {
  const REASON = "invalid_request: subject_token_proof: ";
  const proofs: [name: string, make: (root: Node, child: string) => Promise<string>, reason: string][] = [
    [
      "for another child",
      async ({ key, token }) =>
        createDelegationProof(key, TOKEN_URL, token, await thumbprintOf(await createInstanceKey())),
      `${REASON}cnf.jkt is not the key of the DPoP proof`,
    ],
    [
      "for nobody",
      ({ key, token }) => createProof(key, "POST", TOKEN_URL, token),
      `${REASON}cnf.jkt is not the key of the DPoP proof`,
    ],
    [
      "over another token",
      ({ key }, child) => createDelegationProof(key, TOKEN_URL, "another", child),
      `${REASON}ath is of another token`,
    ],
    [
      "over no token",
      ({ key }, child) => createProof(key, "POST", TOKEN_URL, undefined, { cnf: { jkt: child } }),
      `${REASON}ath is of another token`,
    ],
    [
      "for another method",
      ({ key, token }, child) => createProof(key, "GET", TOKEN_URL, token, { cnf: { jkt: child } }),
      `${REASON}htm is another method`,
    ],
    [
      "for another URL",
      ({ key, token }, child) => createDelegationProof(key, `${ORIGIN}/oauth/revoke`, token, child),
      `${REASON}htu is another URL`,
    ],
    [
      "by another key",
      async ({ token }, child) => createDelegationProof(await createInstanceKey(), TOKEN_URL, token, child),
      `${REASON}not by the key that the subject_token is bound to`,
    ],
  ];
  it.each(proofs)("is refused: %s", async (_name, make, reason) => {
    const root = await rootOf();
    const key = await createInstanceKey();
    const subject_token_proof = await make(root, await thumbprintOf(key));
    expect(said(await askFor(root, { key, form: { subject_token_proof } }))).toBe(reason);
  });

  it("is refused when it is old", async () => {
    const root = await rootOf();
    const key = await createInstanceKey();
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() - 121_000);
    const { subject_token_proof } = await root.held.delegate(await thumbprintOf(key));
    clock.mockRestore();
    expect(said(await askFor(root, { key, form: { subject_token_proof } }))).toBe(
      `${REASON}iat is outside of the window`,
    );
  });

  it("is good once, by a race too, and by nobody as another proof", async () => {
    const root = await rootOf();
    const key = await createInstanceKey();
    const form = await root.held.delegate(await thumbprintOf(key));
    const answers = await Promise.all([1, 2, 3].map(() => askFor(root, { key, form: { ...form } })));
    expect(answers.map(said).sort()).toEqual([
      "granted",
      "invalid_request: subject_token_proof: it was used before",
      "invalid_request: subject_token_proof: it was used before",
    ]);
    const { subject_token_proof } = await root.held.delegate(await thumbprintOf(key));
    const renewed = await send(TOKEN_URL, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: "x" }),
      headers: { DPoP: subject_token_proof },
    });
    expect(await renewed.json()).toMatchObject({
      error: "invalid_dpop_proof",
      error_description: "a proof that was made for a sub-agent",
    });
  });
});

describe("the parent's grant", () => {
  it("is refused once it has expired", async () => {
    const root = await rootOf();
    const key = await createInstanceKey();
    const { expiresAtMs } = root.agent.grant;
    const form = await root.held.delegate(await thumbprintOf(key));
    const clock = vi.spyOn(Date, "now").mockReturnValue(expiresAtMs);
    const answer = await askFor(root, { key, form: { ...form } });
    clock.mockRestore();
    expect(said(answer)).toBe("invalid_request: subject_token: expired");
  });

  it("is refused, by its key, when it was revoked, killed, or is paused: in one answer for all", async () => {
    const [revoked, killed, paused] = [await rootOf(), await rootOf(), await rootOf()];
    await revoked.held.revoke();
    await flip({ reach: "instance", target: { instance: killed.id } });
    await flip({ reach: "instance", target: { instance: paused.id }, act: "pause" });
    for (const root of [revoked, killed, paused])
      expect(said(await askFor(root))).toBe("invalid_request: subject_token: no longer valid");
  });

  it("that is none of this gate's is refused, and so is a refresh token, and one of another spelling", async () => {
    const root = await rootOf();
    const child = await childOf(root, { task_limits: '{"concurrency":9}' });
    expect(said(await askFor(child, { form: { subject_token: child.refresh } }))).toContain(
      "subject_token: typ is not",
    );
    expect(said(await askFor(child, { form: { subject_token: `${child.token}A` } }))).toContain(
      "invalid_request: subject_token: ",
    );
    expect(said(await askFor(child, { form: { subject_token: root.token } }))).toContain("not by the key that");
    expect(verifyGrant(child.token, deployment.grantKeys, ORIGIN, Date.now()).ok).toBe(true);
  });

  it("is no human's token: not as an id_token, not as a jwt, not beside a client's assertion", async () => {
    const root = await rootOf();
    for (const type of ["id_token", "jwt"]) {
      const form = { subject_token_type: `urn:ietf:params:oauth:token-type:${type}` };
      expect(said(await askFor(root, { form }))).toBe("invalid_client: client authentication failed");
    }
    const form = {
      client_assertion: "a.b.c",
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    };
    expect(said(await askFor(root, { form }))).toBe("invalid_client: client authentication failed");
  });

  it("does nothing for who shows no key, another's, or the proof of another", async () => {
    const root = await rootOf();
    expect(said(await askFor(root, { headers: { DPoP: "" } }))).toContain("invalid_dpop_proof: ");
    expect(said(await askFor(root, { headers: { DPoP: await createProof(root.key, "POST", TOKEN_URL) } }))).toBe(
      `invalid_request: subject_token_proof: cnf.jkt is not the key of the DPoP proof`,
    );
  });
});

describe("the parent's object", () => {
  const ask = async (
    root: Awaited<ReturnType<typeof rootOf>>,
    change: { agent?: string; expiresAtMs?: number } = {},
  ) => {
    const child = { instance: crypto.randomUUID(), grant: crypto.randomUUID() };
    const { task, limits } = root.agent.enrolment;
    const { agent = "lead", expiresAtMs = root.agent.grant.expiresAtMs } = change;
    const answer = await instanceOf(deployment, root.id).delegate({
      proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
      grant: { id: "grant-1", expiresAtMs },
      child: { ...child, agent, agentVersion: "1.0.0", purpose: "p", deadlineMs: task.deadlineMs, scope: SCOPE },
      ceiling: limits,
      asked: {},
      deployment: "test",
    });
    return { ...child, said: answer.delegated ? "delegated" : answer.refusal.kind };
  };

  it("looks itself at the grant's time and at whom it may provision: the door has seen them a moment before", async () => {
    const root = await rootOf();
    expect((await ask(root)).said).toBe("delegated");
    // In the very millisecond.
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs);
    expect((await ask(root, { expiresAtMs: nowMs })).said).toBe("dead");
    expect((await ask(root, { expiresAtMs: nowMs + 1 })).said).toBe("delegated");
    clock.mockRestore();
    expect((await ask(root, { agent: "triage-bot" })).said).toBe("agent");
  });

  it("confirms no child that it has given up", async () => {
    const root = await rootOf();
    const instance = () => instanceOf(deployment, root.id);
    const [kept, disowned, ended, late] = [await ask(root), await ask(root), await ask(root), await ask(root)];
    const confirm = ({ instance: child, grant }: typeof kept) => instance().confirmChild(child, grant);
    expect(await confirm(kept)).toBe(true);
    // Its end has not got through yet, so it stands here still.
    vi.spyOn(AgentInstance.prototype, "endAsChildOf").mockRejectedValue(new Error("out of reach"));
    await instance().disown(disowned.instance, disowned.grant);
    expect(await confirm(disowned)).toBe(false);
    const proof = { jti: crypto.randomUUID(), issuedAtMs: Date.now() };
    await instance().endChild({ child: ended.instance, proof, grant: "grant-1", deployment: "test" });
    expect(await confirm(ended)).toBe(false);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 60_000);
    expect(await confirm(late)).toBe(false);
    expect(await confirm(kept)).toBe(true);
    clock.mockRestore();
  });
});
