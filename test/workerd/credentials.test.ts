import { createExecutionContext, env, waitOnExecutionContext } from "cloudflare:test";
import { createLocalJWKSet, jwtVerify } from "jose";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Deployment, Env } from "../../src/deployment.ts";
import { gate } from "../../src/gate/gate.ts";
import { ORIGIN } from "./config.ts";
import { type CredentialAgent, enrolFor, json, secretOf, tokenNo, tokens, world } from "./credential-rig.ts";
import { type Agent, deployment, type Line, recordsOf } from "./kit.ts";

beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
afterEach(() => vi.restoreAllMocks());

/** The newest record: of a call its answer. */
const lastOf = async (agent: Agent): Promise<Line> => (await recordsOf(agent)).at(-1)!;
const refusalOf = async (agent: Agent) => {
  const { type, decision } = await lastOf(agent);
  const { layer, reason } = decision as Record<string, unknown>;
  return { type, layer, reason };
};
const endingOf = async (agent: Agent) => {
  const { outcome, reason, status } = await lastOf(agent);
  return { outcome, reason, status };
};
/** The isolate of a test file holds what an earlier test was given: each begins after it was refused. */
let prefix = "";
beforeEach(() => {
  prefix = `t${crypto.randomUUID().slice(0, 8)}`;
});

describe("a key in the query", () => {
  const KEY = "test-query-credential";

  it("is added to what the agent asked for, and is in no link that leads on", async () => {
    const agent = await enrolFor();
    const next = `https://keyed.test/v1/items?page=2&key=${KEY}&x=%2F`;
    const { of } = world({
      "keyed.test": () =>
        new Response("{}", {
          status: 200,
          headers: { "content-length": "2", link: `<${next}>; rel="next"`, location: next.replace("key=", "KEY=") },
        }),
    });
    const answer = await agent.ask("/keyed/items?page=1");
    expect(of("keyed.test")[0]!.request.url).toBe(`https://keyed.test/v1/items?page=1&key=${KEY}`);
    expect(answer.headers.get("link")).toBe(`<${ORIGIN}/keyed/items?page=2&x=%2F>; rel="next"`);
    expect(answer.headers.get("location")).toBe(`${ORIGIN}/keyed/items?page=2&x=%2F`);
    expect(JSON.stringify(await recordsOf(agent))).not.toContain(KEY);
    expect(await endingOf(agent)).toMatchObject({ outcome: "complete" });
  });

  it("is added where there is no query", async () => {
    const agent = await enrolFor();
    const { of } = world({});
    await agent.ask("/keyed/items");
    expect(of("keyed.test")[0]!.request.url).toBe(`https://keyed.test/v1/items?key=${KEY}`);
  });

  it.each([
    "key=mine",
    "KEY=mine",
    "a=1&key",
    "key[]=mine",
    "%6bey=mine",
    "[key]=mine",
    "key.x=mine",
  ])("is not to be overridden by %s", async (query) => {
    const agent = await enrolFor();
    const { asked } = world({});
    expect((await agent.ask(`/keyed/items?${query}`)).status).toBe(404);
    expect(await refusalOf(agent)).toEqual({
      type: "refused",
      layer: "grant",
      reason: "a query parameter that is, or may be read as, the credential's",
    });
    expect(asked).toHaveLength(0);
  });

  it("is not to be overridden by a form", async () => {
    const agent = await enrolFor();
    const { asked } = world({});
    expect(
      (await agent.ask("/keyed/items", { method: "POST", body: new URLSearchParams({ key: "mine" }) })).status,
    ).toBe(404);
    expect(await refusalOf(agent)).toMatchObject({ reason: "a form where a rule speaks of the query" });
    expect(asked).toHaveLength(0);
  });
});

describe("no credential", () => {
  it("is sent to who wants none, nor the agent's own", async () => {
    const agent = await enrolFor();
    const { of } = world({});
    expect((await agent.ask("/plain/items?key=x")).status).toBe(200);
    const { request } = of("plain.test")[0]!;
    expect(request.headers.has("authorization")).toBe(false);
    expect(request.url).toBe("https://plain.test/items?key=x");
  });
});

/** How often each object was asked, with what the gate itself is given. */
function watched(): { readonly watchedDeployment: Deployment; readonly requests: string[] } {
  const requests: string[] = [];
  const names = ["AGENT_INSTANCE", "CREDENTIAL_BROKER"] as const;
  const watch = (name: (typeof names)[number]) => {
    const namespace = (env as unknown as Env)[name];
    return {
      idFromName: (id: string) => namespace.idFromName(id),
      get: (id: DurableObjectId) =>
        new Proxy(namespace.get(id), {
          get: (stub, method) => {
            return (...params: unknown[]) => {
              requests.push(`${name}.${String(method)}`);
              return (stub as unknown as Record<string, (...p: unknown[]) => unknown>)[String(method)]!(...params);
            };
          },
        }),
    };
  };
  const namespaces = Object.fromEntries(names.map((name) => [name, watch(name)]));
  return {
    requests,
    watchedDeployment: { ...deployment, env: { ...deployment.env, ...namespaces } as unknown as Env },
  };
}

describe("a fetched token", () => {
  const exchanged = (agent: CredentialAgent, path = "/exchange/items") => agent.ask(path);

  it("costs one request of its broker, and none while it lives", async () => {
    const agent = await enrolFor();
    world({ "as.test": tokens(3_600, prefix) });
    const { watchedDeployment, requests } = watched();
    for (let n = 0; n < 3; n++) {
      const ctx = createExecutionContext();
      const path = "/exchange/items";
      const headers = await agent.credentials("GET", path);
      const answer = await gate(new Request(ORIGIN + path, { headers }), watchedDeployment, ctx);
      expect(answer.status).toBe(200);
      await answer.text();
      await waitOnExecutionContext(ctx);
    }
    expect(requests).toEqual([
      "AGENT_INSTANCE.admit",
      "CREDENTIAL_BROKER.token",
      "AGENT_INSTANCE.admit",
      "AGENT_INSTANCE.admit",
    ]);
  });

  it("is asked for once by 200 calls at once", async () => {
    const agent = await enrolFor();
    const { of } = world({
      "as.test": async (request, nth) => {
        await new Promise((resolve) => setTimeout(resolve, 100));
        return tokens(3_600, prefix)(request, nth);
      },
    });
    const answers = await Promise.all(Array.from({ length: 200 }, () => exchanged(agent)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(of("as.test")).toHaveLength(1);
    const sent = of("exchange.test").map(({ request }) => request.headers.get("authorization"));
    expect(sent).toEqual(Array.from({ length: 200 }, () => `Bearer ${tokenNo(1, prefix)}`));
  });

  it("that the upstream refuses is replaced for the next call, and this one stays a 502", async () => {
    const agent = await enrolFor();
    const { of } = world({
      "as.test": tokens(3_600, prefix),
      "exchange.test": (request) =>
        request.headers.get("authorization") === `Bearer ${tokenNo(1, prefix)}`
          ? new Response("no", { status: 401 })
          : json({ ok: true }),
    });
    expect((await exchanged(agent)).status).toBe(502);
    expect(await endingOf(agent)).toEqual({
      outcome: "upstream-failed",
      reason: "the upstream refused the gate's credential",
      status: 401,
    });
    expect(of("exchange.test")).toHaveLength(1);
    for (let n = 0; n < 3; n++) expect((await exchanged(agent)).status).toBe(200);
    expect(of("as.test")).toHaveLength(2);
  });

  it("makes no loop of an upstream that refuses all of them", async () => {
    const agent = await enrolFor();
    const { of } = world({
      "as.test": tokens(3_600, prefix),
      "exchange.test": () => new Response("no", { status: 401 }),
    });
    vi.spyOn(Date, "now").mockReturnValue(Date.now());
    for (let n = 0; n < 10; n++) expect((await exchanged(agent)).status).toBe(502);
    expect(of("exchange.test")).toHaveLength(10);
    expect(of("as.test")).toHaveLength(2);
  });

  it("that can't be had leaves the call unsent, with the reason on record and none outside", async () => {
    const agent = await enrolFor();
    const { of } = world({ "as.test": () => json({ error: "access_denied", error_description: "secret words" }, 403) });
    const answer = await exchanged(agent);
    expect(answer.status).toBe(502);
    expect(await answer.text()).toBe('{"type":"about:blank","title":"Bad Gateway","status":502}');
    expect(await endingOf(agent)).toMatchObject({
      outcome: "not-sent",
      reason: "no credential: the token endpoint answered 403",
    });
    expect(of("exchange.test")).toHaveLength(0);
  });

  it("is exchanged for a statement by the gate's own key of who acts for whom, and is that instance's alone", async () => {
    const [one, two] = await Promise.all([enrolFor(), enrolFor()]);
    const { of } = world({ "as.test": tokens(3_600, prefix) });
    await exchanged(one);
    await exchanged(two);
    const used = of("exchange.test").map(({ request }) => request.headers.get("authorization"));
    expect(used).toEqual([`Bearer ${tokenNo(1, prefix)}`, `Bearer ${tokenNo(2, prefix)}`]);
    const jwks = createLocalJWKSet(deployment.grantKeys.jwks as never);
    for (const [i, agent] of [one, two].entries()) {
      const form = Object.fromEntries(new URLSearchParams(of("as.test")[i]!.body));
      expect(form).toMatchObject({
        grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
        audience: "exchange-api",
        client_id: "gate",
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      });
      const options = { issuer: ORIGIN, audience: "https://as.test", typ: "portcullis-delegation+jwt" };
      const { payload } = await jwtVerify(form["subject_token"]!, jwks, options);
      expect(payload).toMatchObject({
        sub: agent.enrolment.human,
        act: { sub: agent.id, agent: "triage-bot", agent_version: "1.0.0" },
        task: agent.enrolment.task.id,
      });
      expect(payload.exp! - payload.iat!).toBeLessThanOrEqual(60);
      const { d: _, ...clientKey } = JSON.parse(secretOf("CLIENT_KEY"));
      const client = await jwtVerify(form["client_assertion"]!, createLocalJWKSet({ keys: [clientKey] }));
      expect(client.payload).toMatchObject({ iss: "gate", sub: "gate", aud: "https://as.test/exchange" });
    }
  });
});

describe("an installation token", () => {
  const repository = (repo: readonly string[]) => ({
    type: "http",
    upstream: "app",
    operations: ["GET /repos/{owner}/{repo}/issues", "GET /repos/{owner}/{repo}/labels"],
    where: { owner: ["acme"], repo },
  });
  const installation = async (request: Request, nth: number): Promise<Response> => {
    if (!request.url.endsWith("/access_tokens")) return json([]);
    const { repositories } = (await request.clone().json()) as { readonly repositories: readonly string[] };
    const given = {
      token: tokenNo(nth, prefix),
      expires_at: new Date(Date.now() + 3_600_000).toISOString(),
      permissions: { issues: "read", metadata: "read" },
      repository_selection: "selected",
      repositories: repositories.map((name) => ({ name })),
    };
    return json(given, 201);
  };

  it("is shared by grants of equal scope, and by no other", async () => {
    const repo = `r${prefix}`;
    const agents = await Promise.all(
      [[repo], [repo.toUpperCase()], [repo, "gears"]].map((r) => enrolFor([repository(r)])),
    );
    const { of } = world({ "app.test": installation });
    const names = [repo, repo.toUpperCase(), "gears"];
    for (const [i, agent] of agents.entries())
      expect((await agent.ask(`/app/repos/acme/${names[i]}/issues`)).status).toBe(200);
    const wanted = of("app.test").filter(({ request }) => request.method === "POST");
    expect(wanted.map(({ body }) => JSON.parse(body).repositories)).toEqual([[repo], ["gears", repo]]);
  });

  it("is not for an operation that no row of permissions covers", async () => {
    const agent = await enrolFor();
    const { asked } = world({ "app.test": installation });
    expect((await agent.ask("/app/repos/acme/widgets/labels")).status).toBe(404);
    expect(await refusalOf(agent)).toEqual({
      type: "refused",
      layer: "grant",
      reason: "no permission in the configuration is for this operation",
    });
    expect(asked).toHaveLength(0);
  });

  it("is not for a grant that does not name its repositories", async () => {
    const agent = await enrolFor([
      { type: "http", upstream: "app", operations: ["GET /repos/{owner}/{repo}/issues"], where: { owner: ["acme"] } },
    ]);
    const { asked } = world({ "app.test": installation });
    expect((await agent.ask("/app/repos/acme/widgets/issues")).status).toBe(404);
    expect((await refusalOf(agent)).reason).toBe(
      "the credential can't be narrowed: GET /repos/{owner}/{repo}/issues does not name its repositories",
    );
    expect(asked).toHaveLength(0);
  });
});

describe("an answer that echoes the credential", () => {
  const KEY = "test-query-credential";
  const runs = (...texts: readonly string[]): ReadableStream => {
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    const write = async () => {
      for (const text of texts) {
        await writer.write(new TextEncoder().encode(text));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await writer.close();
    };
    // A reader that cuts leaves the rest unwritten.
    write().catch(() => {});
    return readable;
  };
  const ECHOED = { outcome: "upstream-failed", reason: "the answer held the credential" };

  it.each<[where: string, answer: () => Response]>([
    ["in a whole body", () => json({ you_sent: KEY })],
    ["in base64", () => json({ you_sent: btoa(`:${KEY}`) })],
    ["in a header", () => new Response("{}", { headers: { "content-length": "2", "x-echo": `key=${KEY}` } })],
    [
      "in the header of an answer without a body",
      () => new Response(null, { status: 204, headers: { "x-echo": KEY } }),
    ],
    [
      "in a redirect, in another parameter",
      () => new Response(null, { status: 302, headers: { location: `https://keyed.test/v1/a?next=${KEY}` } }),
    ],
  ])("%s is a 502, and on record without it", async (_where, answer) => {
    const agent = await enrolFor();
    world({ "keyed.test": answer });
    const heard = await agent.ask("/keyed/items");
    expect(heard.status).toBe(502);
    expect(JSON.stringify([[...heard.headers], await heard.text()])).not.toContain(KEY);
    expect(await endingOf(agent)).toMatchObject(ECHOED);
    expect(JSON.stringify(await recordsOf(agent))).not.toContain(KEY);
  });

  it("in a stream cuts it before the first byte of it, over the boundaries of its runs", async () => {
    const agent = await enrolFor();
    world({
      "keyed.test": () => new Response(runs("data: one\n\n", "data: test-query", "-cred", "ential\n\n", "more")),
    });
    const heard = await agent.ask("/keyed/items");
    let text = "";
    const reading = (async () => {
      for await (const run of heard.body as ReadableStream<Uint8Array>) text += new TextDecoder().decode(run);
    })();
    await expect(reading).rejects.toThrow();
    expect(text).not.toContain("test-query");
    expect("data: one\n\ndata: ".startsWith(text)).toBe(true);
    expect(text).toContain("data: one");
    await vi.waitFor(async () => expect(await endingOf(agent)).toMatchObject(ECHOED), { timeout: 10_000 });
  });

  it("beside its refusal of the credential is on record without it", async () => {
    const agent = await enrolFor();
    world({ "keyed.test": () => new Response(`bad key ${KEY}`, { status: 401, headers: { "x-key": KEY } }) });
    expect((await agent.ask("/keyed/items")).status).toBe(502);
    expect(await lastOf(agent)).toMatchObject({
      outcome: "upstream-failed",
      reason: "the upstream refused the gate's credential, and the answer held the credential",
      status: 401,
      headers: [],
    });
  });

  it("passes where it is a token that was replaced, or a part of one", async () => {
    const agent = await enrolFor();
    world({ "keyed.test": () => json({ you_sent: KEY.slice(0, -1) }) });
    expect(await (await agent.ask("/keyed/items")).json()).toEqual({ you_sent: KEY.slice(0, -1) });
  });
});
