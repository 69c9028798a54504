import { afterEach, describe, expect, it, vi } from "vitest";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { issueGrant } from "../../src/grant/claims.ts";
import { instanceOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, type Line, recordsOf, settlement, upstream } from "./kit.ts";
import { abortInstance, ofTask, readQuota } from "./quota-kit.ts";
import { modelCalls } from "./quotas-config.ts";
import { giveUpOrphans } from "./resume-kit.ts";

afterEach(() => vi.restoreAllMocks());

const MODEL_CALL = {
  upstream: "model",
  method: "POST",
  segments: ["v1", "chat"],
  query: [],
  body: { kind: "none" as const },
};
/** 1,000 × 3 + 4,000 × 15 millionths. */
const RESERVE = { "input-tokens": 1_000, "output-tokens": 4_000, usd: 0.063 };

/** Whose only limit is the quota's dollar, or its own. */
const payer = (units: Record<string, number> = {}) => {
  const change = ofTask("paying-bot");
  return enrolAgent({ ...change, limits: { ...change.limits!, units } });
};
const admission = (agent: Agent) => agent.admission({ call: MODEL_CALL });

async function admit(agent: Agent) {
  const answer = await instanceOf(deployment, agent.id).admit(admission(agent));
  if (!answer.admitted) throw new Error(JSON.stringify(answer.denial));
  return answer;
}
async function refusalOf(agent: Agent) {
  const answer = await instanceOf(deployment, agent.id).admit(admission(agent));
  return answer.admitted ? "admitted" : answer.denial;
}
const last = async (agent: Agent, type: string): Promise<Line> =>
  (await recordsOf(agent)).findLast((line) => line.type === type)!;
const spentOf = async (agent: Agent) =>
  (await readQuota(`money.${agent.enrolment.task.id}`))!.dimensions.find(({ dimension }) => dimension === "units.usd");

describe("metered units", () => {
  it("of a call whose Worker fell silent stay charged as reserved, to itself and to the quota", async () => {
    for (const own of [{ usd: 0.1 }, {}]) {
      const agent = await payer(own);
      await admit(agent);
      const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 21_000);
      const budget = { kind: "exhausted", budget: "units.usd" };
      expect(await refusalOf(agent)).toEqual(
        "usd" in own ? budget : { ...budget, quota: `money.${agent.enrolment.task.id}` },
      );
      clock.mockRestore();
      expect(await last(agent, "answer")).toMatchObject({
        outcome: "lost",
        units: { usd: { charged: 0.063, by: "reserve" } },
      });
    }
  });

  it("are reserved with the call, and settled with its answer", async () => {
    const agent = await payer({ usd: 0.1 });
    const { lease, limits } = await admit(agent);
    expect((await last(agent, "call"))["reserved"]).toEqual(RESERVE);
    expect(limits.units).toEqual({ usd: 0.037 });
    expect(await refusalOf(agent)).toEqual({ kind: "exhausted", budget: "units.usd" });
    expect(await last(agent, "refused")).toMatchObject({
      decision: { layer: "limits", reason: "the budget of units.usd is spent" },
    });
    await lease.settle(settlement({ units: { "input-tokens": 10, "output-tokens": 20, usd: 0.00033 } }));
    expect((await last(agent, "answer"))["units"]).toEqual({
      "input-tokens": { charged: 10, by: "answer" },
      "output-tokens": { charged: 20, by: "answer" },
      usd: { charged: 0.00033, by: "answer" },
    });
    expect((await admit(agent)).limits.units).toEqual({ usd: 0.03667 });
  });

  it("beyond the reserve are charged in full, and nothing is left for the next call", async () => {
    const agent = await payer({ usd: 0.1 });
    const { lease } = await admit(agent);
    await lease.settle(settlement({ units: { usd: 5 } }));
    expect((await last(agent, "answer"))["units"]).toMatchObject({ usd: { charged: 5, by: "answer" } });
    expect(await refusalOf(agent)).toEqual({ kind: "exhausted", budget: "units.usd" });
  });

  it("of an answer that can't be read cost their reserve, and of a call that never left nothing", async () => {
    const agent = await payer({ usd: 1 });
    await (await admit(agent)).lease.settle(settlement({ outcome: "not-sent", head: null, tail: new Uint8Array(0) }));
    expect((await last(agent, "answer"))["units"]).toMatchObject({ usd: { charged: 0, by: "answer" } });
    const { lease, limits } = await admit(agent);
    expect(limits.units).toEqual({ usd: 0.937 });
    await lease.settle(settlement({ outcome: "cut" }));
    expect((await last(agent, "answer"))["units"]).toMatchObject({ usd: { charged: 0.063, by: "reserve" } });
  });

  it("of a call whose object was reset cost their reserve, at the instance and at the quota", async () => {
    const agent = await payer({ usd: 0.1 });
    await admit(agent);
    await abortInstance(agent);
    expect(await refusalOf(agent)).toEqual({ kind: "exhausted", budget: "units.usd" });
    await giveUpOrphans(agent);
    expect(await refusalOf(agent)).toEqual({ kind: "exhausted", budget: "units.usd" });
    expect(await last(agent, "answer")).toMatchObject({
      outcome: "lost",
      units: { usd: { charged: 0.063, by: "reserve" } },
    });
  });

  it("are shared by a quota: what one has reserved, another can't", async () => {
    const change = ofTask("paying-bot");
    const limits = { ...change.limits!, units: {} };
    const [first, second] = await Promise.all([enrolAgent({ ...change, limits }), enrolAgent({ ...change, limits })]);
    const { lease } = await admit(first);
    expect(await refusalOf(second)).toEqual({
      kind: "exhausted",
      budget: "units.usd",
      quota: `money.${first.enrolment.task.id}`,
    });
    await lease.settle(settlement({ units: { usd: 0.001 } }));
    await vi.waitFor(async () => expect(await refusalOf(second)).toBe("admitted"), { interval: 300 });
    expect(await spentOf(second)).toMatchObject({ limit: 0.1 });
  });
});

describe("through the gate", () => {
  /** A grant for the model; the kit's are for another upstream. */
  async function chat(agent: Agent) {
    const scope = [modelCalls];
    const { id, expiresAtMs } = agent.grant;
    const token = issueGrant(deployment.grantKeys, {
      iss: ORIGIN,
      sub: "subject-1",
      aud: [`${ORIGIN}/model`],
      client_id: "build-platform",
      jti: id,
      iat: Math.floor(Date.now() / 1000),
      exp: expiresAtMs / 1000,
      cnf: { jkt: agent.id },
      authorization_details: scope as never,
    });
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token));
    const proof = await agent.prove("POST", "/model/v1/chat", { ath: encodeBase64url(new Uint8Array(digest)) });
    const { exports } = await import("cloudflare:workers");
    return exports.default.fetch(
      new Request(`${ORIGIN}/model/v1/chat`, {
        method: "POST",
        headers: { authorization: `DPoP ${token}`, dpop: proof },
      }),
    );
  }

  const usage = (input: number, output: number) => ({ prompt_tokens: input, completion_tokens: output });
  const events = (...data: string[]) =>
    new Response(data.map((one) => `data: ${one}\n\n`).join(""), { headers: { "content-type": "text/event-stream" } });
  const answers: readonly [string, () => Response, object][] = [
    [
      "a JSON answer",
      () => Response.json({ model: "other", usage: usage(10, 20) }),
      { charged: 0.00033, by: "answer" },
    ],
    [
      "a price by the model",
      () => Response.json({ model: "small", usage: usage(10, 20) }),
      { charged: 0.000014, by: "answer" },
    ],
    [
      "the last of the events that say it",
      () =>
        events(
          JSON.stringify({ model: "other", usage: null }),
          JSON.stringify({ usage: usage(10, 1) }),
          JSON.stringify({ usage: usage(10, 20) }),
          "[DONE]",
        ),
      { charged: 0.00033, by: "answer" },
    ],
    ["an answer without it", () => Response.json({ model: "other" }), { charged: 0.063, by: "reserve" }],
    [
      "a coding that nobody reads",
      () => new Response("x", { headers: { "content-type": "application/json", "content-encoding": "zstd" } }),
      { charged: 0.063, by: "reserve" },
    ],
    [
      "an amount that is none",
      () => Response.json({ model: "other", usage: usage(-1, 20) }),
      { charged: 0.063, by: "reserve" },
    ],
  ];
  for (const [what, answer, usd] of answers)
    it(`reads ${what}`, async () => {
      const agent = await payer();
      upstream(answer);
      const response = await chat(agent);
      await response.text();
      expect(response.status).toBe(200);
      await vi.waitFor(async () => expect((await last(agent, "answer"))["units"]).toMatchObject({ usd }));
    });

  it("tells the agent of its own limits, in the place of what the upstream says by these names, and of no other", async () => {
    const agent = await payer({ usd: 0.1 });
    upstream(() =>
      Response.json({ usage: usage(1, 1) }, { headers: { ratelimit: '"theirs";r=1', "x-ratelimit-remaining": "7" } }),
    );
    const response = await chat(agent);
    await response.text();
    expect(response.headers.get("ratelimit-policy")).toBe(
      '"calls";q=1000000, "bytes";q=1073741824;qu="content-bytes", "units-usd";q=0;qu="usd", "concurrency";q=10000;qu="concurrent-requests", "rate";q=100000;w=1',
    );
    expect(response.headers.get("ratelimit")).toMatch(
      /^"calls";r=999999, "bytes";r=\d+, "units-usd";r=0, "concurrency";r=9999, "rate";r=\d+;t=1$/,
    );
    expect(response.headers.get("x-ratelimit-remaining")).toBe("7");
    const { headers } = (await last(agent, "answer")) as unknown as { headers: [string, string][] };
    expect(headers).toContainEqual(["ratelimit-policy", response.headers.get("ratelimit-policy")]);
    // By the money that is shared: nothing of that is said.
    const [refused, second] = [await chat(agent), await chat(agent)];
    expect([refused.status, second.status]).toContain(429);
    const limited = refused.status === 429 ? refused : second;
    expect(limited.headers.get("ratelimit")).toContain('"calls";r=');
    expect(limited.headers.get("ratelimit")).not.toContain("money");
  });
});
