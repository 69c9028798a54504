import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { afterEach, expect, it, vi } from "vitest";
import type { Deployment } from "../../src/deployment.ts";
import { gate } from "../../src/gate/gate.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, ISSUES, recordsOf, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const github = deployment.config.upstreams["github"]!;
const wanting: Deployment = {
  ...deployment,
  config: {
    ...deployment.config,
    upstreams: { github: { ...github, delegation: { header: "Portcullis-Delegation" } } },
  },
};

async function ask(agent: Agent, by: Deployment, path = ISSUES): Promise<number> {
  const headers = { authorization: `DPoP ${agent.token}`, dpop: await agent.prove("GET", path) };
  const ctx = createExecutionContext();
  const response = await gate(new Request(ORIGIN + path, { headers }), by, ctx);
  await response.text();
  await waitOnExecutionContext(ctx);
  return response.status;
}

it("a delegation costs one signature, of a call that leaves to an upstream that wants it; else none", async () => {
  const agent = await enrolAgent();
  const said: (string | null)[] = [];
  upstream(({ headers }) => {
    said.push(headers.get("portcullis-delegation"));
    return Response.json({});
  });
  const sign = vi.spyOn(deployment.grantKeys, "signCompact");
  expect(await ask(agent, deployment)).toBe(200);
  expect(sign).not.toHaveBeenCalled();
  expect(await ask(agent, wanting, "/github/user")).toBe(404);
  expect(sign).not.toHaveBeenCalled();
  expect(await ask(agent, wanting)).toBe(200);
  expect(sign).toHaveBeenCalledTimes(1);
  expect(said).toEqual([null, sign.mock.results[0]!.value]);
  // Of the two calls, the record says it of one; its `aud` is the base URL, where none is configured.
  const calls = (await recordsOf(agent)).filter(({ type }) => type === "call");
  expect(calls.map(({ delegation }) => delegation)).toEqual([
    undefined,
    { jti: expect.any(String), aud: "https://github.test" },
  ]);
});
