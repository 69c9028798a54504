// One call with everything that a call can have: a person's approval, a credential, a signed delegation, units and money, a
// redacted answer, a look for what was sent. What each of them does is pinned elsewhere; here, that none undoes another.

import { decodeJwt } from "jose";
import { afterEach, describe, expect, it, vi } from "vitest";
import { decide } from "./approval-kit.ts";
import { type CredentialAgent, enrolFor, json, secretOf, world } from "./credential-rig.ts";
import { type Line, recordsOf } from "./kit.ts";
import { wholeCalls, wholeUpstream } from "./whole-config.ts";

afterEach(() => vi.restoreAllMocks());

const PAY = "/whole/pay/7";
const IBAN = "DE02 1203 0000 0000 2020 51";
const KEY = secretOf("QUERY_KEY");
const enrol = () => enrolFor([wholeCalls], { units: { "whole-usd": 5 } });
const lineOf = async (agent: CredentialAgent, type: string): Promise<Line> =>
  (await recordsOf(agent)).findLast((line) => line.type === type)!;

/** A payment that a person approves, and what it came to. */
async function paid(agent: CredentialAgent, answer: (token: string) => Response, waitMs = 0) {
  const { of } = world({
    "whole.test": async (request) => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return answer(request.headers.get("x-acting-for") ?? "");
    },
    "hooks.test": () => new Response(null, { status: 204 }),
  });
  const headers = { "content-type": "application/json", "x-acting-for": "me", "x-api-key": "mine" };
  const asked = agent.ask(PAY, { method: "POST", body: '{"amount":1}', headers });
  await new Promise((resolve) => setTimeout(resolve, waitMs));
  await decide(agent);
  const heard = await asked;
  return { heard, text: await heard.text(), sent: of("whole.test").map(({ request }) => request) };
}

describe("a call with everything", () => {
  it("passes once, when it is approved, with what it cost and without what is not written down", async () => {
    const agent = await enrol();
    // The person takes longer than the upstream may.
    const waitMs = wholeUpstream.totalTimeoutMs + 300;
    const answered = () => {
      const answer = json({ iban: IBAN, usage: { total: 7 } });
      answer.headers.set("x-iban", IBAN);
      return answer;
    };
    const { heard, text, sent } = await paid(agent, answered, waitMs);
    expect(heard.status).toBe(200);
    expect(JSON.parse(text)).toEqual({ iban: IBAN, usage: { total: 7 } });
    expect(heard.headers.get("x-iban")).toBe(IBAN);
    expect(heard.headers.get("ratelimit")).toMatch(/"units-whole-usd";r=4,/);
    expect(sent).toHaveLength(1);
    const token = sent[0]!.headers.get("x-acting-for")!;
    expect(sent[0]!.headers.get("x-api-key")).toBe(KEY);

    const call = await lineOf(agent, "call");
    const claims = decodeJwt(token);
    expect(claims).toMatchObject({ txn: `${agent.id}:${call.seq}`, sub: "human-1", aud: "https://whole.test" });
    expect(claims.exp! - Date.now() / 1000).toBeGreaterThan(50);
    expect(call).toMatchObject({
      delegation: { jti: claims.jti },
      reserved: { "whole-tokens": 100, "whole-usd": 1 },
      approval: expect.any(String),
    });
    expect(await lineOf(agent, "answer")).toMatchObject({
      outcome: "complete",
      units: { "whole-tokens": { charged: 7, by: "answer" }, "whole-usd": { charged: 0.07, by: "answer" } },
    });
    const record = JSON.stringify(await recordsOf(agent));
    for (const secret of [IBAN, KEY, token]) expect(record).not.toContain(secret);
    // Approved once, so the next one waits again; and what is left is what the answer left.
    const limits = heard.headers.get("ratelimit-policy")!;
    expect(limits).toContain('"units-whole-usd";q=5;qu="whole-usd"');
  });

  it.each<[what: string, said: (token: string) => unknown]>([
    ["credential", () => KEY],
    ["signed delegation", (token) => token],
  ])("is a 502 where the answer's redacted field is the %s, and costs its reserve", async (what, said) => {
    const agent = await enrol();
    const { heard, text, sent } = await paid(agent, (token) => json({ iban: said(token), usage: { total: 0 } }));
    expect(heard.status).toBe(502);
    const record = JSON.stringify(await recordsOf(agent));
    for (const secret of [KEY, sent[0]!.headers.get("x-acting-for")!]) {
      expect(record).not.toContain(secret);
      expect(JSON.stringify([text, ...heard.headers])).not.toContain(secret);
    }
    expect(await lineOf(agent, "answer")).toMatchObject({
      outcome: "upstream-failed",
      reason: `the answer held the ${what}`,
      units: { "whole-usd": { charged: 1, by: "reserve" } },
    });
  });
});

describe("a signed delegation that the upstream gives back", () => {
  const get = async (agent: CredentialAgent, answer: (token: string) => Response) => {
    const { of } = world({ "whole.test": (request) => answer(request.headers.get("x-acting-for")!) });
    const heard = await agent.ask("/whole/things");
    return { heard, token: of("whole.test")[0]!.request.headers.get("x-acting-for")! };
  };
  const HELD = { outcome: "upstream-failed", reason: "the answer held the signed delegation" };

  it("in a body is a 502", async () => {
    const agent = await enrol();
    const { heard, token } = await get(agent, (given) => json({ headers: { "X-Acting-For": given } }));
    expect([heard.status, (await heard.text()).includes(token)]).toEqual([502, false]);
    expect(await lineOf(agent, "answer")).toMatchObject(HELD);
    expect(JSON.stringify(await recordsOf(agent))).not.toContain(token);
  });

  it("in a stream cuts it before its first part has passed", async () => {
    const agent = await enrol();
    const { heard, token } = await get(agent, (given) => {
      const { readable, writable } = new IdentityTransformStream();
      const writer = writable.getWriter();
      const write = async () => {
        for (const text of ["data: one\n\n", `data: ${given.slice(0, 90)}`, given.slice(90), "\n\n"]) {
          await writer.write(new TextEncoder().encode(text));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        await writer.close();
      };
      write().catch(() => {});
      return new Response(readable, { headers: { "content-type": "text/event-stream" } });
    });
    let text = "";
    const reading = (async () => {
      for await (const run of heard.body as ReadableStream<Uint8Array>) text += new TextDecoder().decode(run);
    })();
    await expect(reading).rejects.toThrow();
    expect("data: one\n\ndata: ".startsWith(text)).toBe(true);
    expect(text).not.toContain(token.slice(0, 8));
    await vi.waitFor(async () => expect(await lineOf(agent, "answer")).toMatchObject(HELD));
  });

  it("beside the upstream's refusal is not on record", async () => {
    const agent = await enrol();
    const refusal = (given: string) => new Response(`no such caller: ${given}`, { status: 401 });
    const { heard, token } = await get(agent, refusal);
    expect(heard.status).toBe(502);
    expect(await lineOf(agent, "answer")).toMatchObject({
      reason: "the upstream refused the gate's credential, and the answer held the signed delegation",
    });
    expect(JSON.stringify(await recordsOf(agent))).not.toContain(token);
  });

  it("in a header alone is left out of it, and the rest passes", async () => {
    const agent = await enrol();
    const { heard, token } = await get(agent, (given) => {
      const answer = json({ fine: true });
      answer.headers.set("x-debug", `you said ${given}`);
      return answer;
    });
    expect([heard.status, await heard.json()]).toEqual([200, { fine: true }]);
    expect(JSON.stringify([...heard.headers])).not.toContain(token);
  });
});

describe("a call that its own budget cuts before its answer has begun", () => {
  it("is a 429 like any other, with the instance's limits", async () => {
    const agent = await enrolFor([wholeCalls], { bytes: 2_000_000 });
    world({});
    const heard = await agent.ask("/whole/things", {
      method: "POST",
      body: new Uint8Array(6_000_000),
      headers: { "content-type": "application/octet-stream" },
    });
    expect(heard.status).toBe(429);
    expect(heard.headers.get("ratelimit-policy")).toContain('"bytes";q=2000000');
    expect(heard.headers.get("ratelimit")).toContain('"bytes";r=');
    expect(await lineOf(agent, "answer")).toMatchObject({ outcome: "cut", reason: "the lease broke: budget" });
  });
});
