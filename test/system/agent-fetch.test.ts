// The agent's side against the running gate: renewal, redirects, and what it refuses to do.

import { createServer, type Server } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import {
  createAgentFetch,
  createEnrolmentProof,
  createHeldGrant,
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
    const { agent, issues } = await startAgent(5);
    expect((await agent(issues)).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 5_200));
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

describe("a refused renewal", () => {
  const answers = {
    refused: [400, { error: "invalid_grant" }],
    broken: [503, { error: "temporarily_unavailable" }],
  } as const;

  /** A gate that says so to every renewal, and the time, which passes only when told. */
  async function startRenewals(first: keyof typeof answers) {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000_000 });
    let answer: readonly [number, object] = answers[first];
    let asked = 0;
    const held = createHeldGrant({
      gate: "https://gate.example.com",
      key: await createInstanceKey(),
      grant: { access_token: "first", expires_in: 100, refresh_token: "refresh" },
      fetch: async () => {
        asked++;
        return Response.json(answer[1], { status: answer[0] });
      },
    });
    const call = async (afterMs: number) => {
      vi.setSystemTime(Date.now() + afterMs);
      const { Authorization } = await held.authorize("GET", "https://gate.example.com/github/x");
      return { asked, shown: Authorization, isRefused: held.refusedSinceMs !== undefined };
    };
    const say = (status: number, body: object) => {
      answer = [status, body];
    };
    return { held, call, say };
  }
  afterEach(() => void vi.useRealTimers());

  it("is asked for again with the next call 30 s later, and not before: it may have been a pause", async () => {
    const { call, say } = await startRenewals("refused");
    expect(await call(0)).toEqual({ asked: 0, shown: "DPoP first", isRefused: false });
    expect(await call(71_000)).toEqual({ asked: 1, shown: "DPoP first", isRefused: true });
    expect(await call(29_000)).toMatchObject({ asked: 1, isRefused: true });
    say(200, { access_token: "second", expires_in: 100 });
    expect(await call(1_000)).toEqual({ asked: 2, shown: "DPoP second", isRefused: false });
    // The refresh token is kept where the answer brings none.
    expect(await call(71_000)).toMatchObject({ asked: 3 });
  });

  it("is not what a gate in trouble says, and that is asked again soon", async () => {
    const { call, held } = await startRenewals("broken");
    expect(await call(71_000)).toEqual({ asked: 1, shown: "DPoP first", isRefused: false });
    expect(await call(999)).toMatchObject({ asked: 1 });
    expect(await call(1)).toMatchObject({ asked: 2 });
    expect(await held.renew()).toBe("failed");
  });
});
