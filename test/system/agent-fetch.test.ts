// The agent's side against the running gate: renewal, redirects, and what it refuses to do.

import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import {
  createAgentFetch,
  createEnrolmentProof,
  createInstanceKey,
  type GrantTokens,
} from "../../src/agent/agent-fetch.ts";
import { type Harness, startHarness } from "./harness.ts";

const SECONDS = 4;
let upstream: Server;
let gate: Harness;
const seen: string[] = [];

beforeAll(async () => {
  upstream = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    if (request.url === "/repos/acme/widgets/issues?moved") {
      response.writeHead(302, { location: "/repos/acme/widgets/issues?here" }).end();
      return;
    }
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ url: request.url }));
  });
  const port = await listenOnLoopback(upstream, 0);
  gate = await startHarness({ addresses: { github: `http://127.0.0.1:${port}`, grantSeconds: SECONDS } });
});

afterAll(async () => {
  await gate.close();
  await closeServer(upstream);
});

async function startAgent(deadlineInSeconds = 600) {
  const key = await createInstanceKey();
  const proof = await createEnrolmentProof(gate.origin, key);
  const form = { ...gate.exchangeForm(), deadline: String(Math.floor(Date.now() / 1000) + deadlineInSeconds) };
  const { status, json, text } = await gate.post("/oauth/token", form, { DPoP: proof });
  if (status !== 200) throw new Error(text);
  const requests: string[] = [];
  const agent = createAgentFetch({
    gate: gate.origin,
    key,
    grant: json as unknown as GrantTokens,
    fetch: (input, init) => {
      requests.push(new URL(new Request(input as RequestInfo, init as RequestInit).url).pathname);
      return fetch(input, init);
    },
  });
  return { agent, requests, issues: `${gate.origin}/github/repos/acme/widgets/issues` };
}

describe("createAgentFetch", () => {
  it("calls through the gate, and nowhere else", async () => {
    const { agent, issues } = await startAgent();
    expect((await agent(issues)).status).toBe(200);
    await expect(agent("https://api.github.com/user")).rejects.toThrow("and nothing else");
  });

  it("renews once, ahead of the expiry, however many calls ask for it; and goes on past the first grant's life", async () => {
    const { agent, requests, issues } = await startAgent();
    expect((await agent(issues)).status).toBe(200);
    expect(requests).not.toContain("/oauth/token");
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 500 + 100));
    const calls = await Promise.all(Array.from({ length: 5 }, () => agent(issues)));
    expect(calls.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(requests.filter((path) => path === "/oauth/token")).toHaveLength(1);
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    expect((await agent(issues)).status).toBe(200);
  });

  it("stops with the task: no renewal goes past its deadline", async () => {
    const { agent, issues } = await startAgent(3);
    expect((await agent(issues)).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 3_200));
    expect((await agent(issues)).status).toBe(401);
  });

  it("follows a redirect within the gate, with a proof for each hop", async () => {
    const { agent, issues } = await startAgent();
    const response = await agent(`${issues}?moved`);
    expect([response.status, await response.json()]).toEqual([200, { url: "/repos/acme/widgets/issues?here" }]);
    const manual = await agent(`${issues}?moved`, { redirect: "manual" });
    expect([manual.status, manual.headers.get("location")]).toEqual([302, `${issues}?here`]);
    expect(seen.at(-1)).toBe("GET /repos/acme/widgets/issues?moved");
  });
});
