import { createExecutionContext, env, waitOnExecutionContext } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Deployment, Env } from "../../src/deployment.ts";
import { gate } from "../../src/gate/gate.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, ISSUES, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

/** The deployment with every call of a Durable Object's method on record: each is one billed request. */
function watched(): { readonly deployment: Deployment; readonly requests: string[] } {
  const requests: string[] = [];
  const watch = (name: string, namespace: DurableObjectNamespace) =>
    new Proxy(namespace, {
      get(target, property) {
        if (property !== "get") {
          const value = Reflect.get(target, property);
          return typeof value === "function" ? value.bind(target) : value;
        }
        return (...args: Parameters<DurableObjectNamespace["get"]>) =>
          new Proxy(target.get(...args), {
            get(stub, method) {
              return (...params: unknown[]) => {
                requests.push(`${name}.${String(method)}`);
                return (stub as unknown as Record<string, (...p: unknown[]) => unknown>)[String(method)]!(...params);
              };
            },
          });
      },
    });
  const bindings = env as unknown as Env;
  const names = ["AGENT_INSTANCE", "ROSTER", "SWITCHBOARD", "JOURNAL"] as const;
  const namespaces = Object.fromEntries(names.map((name) => [name, watch(name, bindings[name])]));
  return { requests, deployment: { ...deployment, env: { ...bindings, ...namespaces } as Env } };
}

async function ask(agent: Agent, change: { token?: string; proof?: string; path?: string } = {}) {
  const { requests, deployment } = watched();
  const path = change.path ?? ISSUES;
  const headers = {
    authorization: `DPoP ${change.token ?? agent.token}`,
    dpop: change.proof ?? (await agent.prove("GET", path)),
  };
  const ctx = createExecutionContext();
  const response = await gate(new Request(ORIGIN + path, { headers }), deployment, ctx);
  await response.text();
  await waitOnExecutionContext(ctx);
  return { status: response.status, requests };
}

const spoil = (token: string): string => `${token.slice(0, -3)}${token.endsWith("AAA") ? "BBB" : "AAA"}`;

describe("Durable Object requests", () => {
  it("an ordinary call costs one", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    expect(await ask(agent)).toEqual({ status: 200, requests: ["AGENT_INSTANCE.admit"] });
  });

  it("a refusal at the grant's signature costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { token: spoil(agent.token) })).toEqual({ status: 401, requests: [] });
  });

  it("a refusal at the proof's signature costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { proof: spoil(await agent.prove("GET", ISSUES)) })).toEqual({ status: 401, requests: [] });
  });

  it("a refusal at the proof's claims costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { proof: await agent.prove("POST", ISSUES) })).toEqual({ status: 401, requests: [] });
  });

  it("a call out of scope costs one, which records it", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { path: "/github/repos/evil/widgets/issues" })).toEqual({
      status: 404,
      requests: ["AGENT_INSTANCE.admit"],
    });
  });
});
