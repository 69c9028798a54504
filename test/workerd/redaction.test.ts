import { createExecutionContext, runInDurableObject, waitOnExecutionContext } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { redactionRules } from "../../src/config/redaction.ts";
import type { Deployment } from "../../src/deployment.ts";
import { gate } from "../../src/gate/gate.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, ISSUES, instanceStub, recordsOf, switchOf, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const COMMENTS = `${ISSUES}/1/comments`;
const github = {
  ...deployment.config.upstreams["github"]!,
  redact: redactionRules.parse([{ name: "all", in: "both", fields: ["/pin"], headers: ["prefer"], query: ["t"] }]),
};
/** The Worker's; what the instance decides does not hang on these rules. */
const redacting: Deployment = {
  ...deployment,
  config: { ...deployment.config, upstreams: { ...deployment.config.upstreams, github } },
};

async function post(agent: Agent, body: string): Promise<{ readonly status: number; readonly text: string }> {
  const request = new Request(`${ORIGIN}${COMMENTS}?t=1`, {
    method: "POST",
    headers: {
      authorization: `DPoP ${agent.token}`,
      dpop: await agent.prove("POST", COMMENTS),
      "content-type": "application/json",
      prefer: "x",
    },
    body,
  });
  const ctx = createExecutionContext();
  const response = await gate(request, redacting, ctx);
  const text = await response.text();
  await waitOnExecutionContext(ctx);
  return { status: response.status, text };
}

describe("a call that rules concern", () => {
  it("costs two rows, like any, and what it may use is counted in the bytes that passed", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json({ pin: 1, more: "y".repeat(70_000) }));
    const sent = JSON.stringify({ pin: "x".repeat(10_000) });
    const { text } = await post(agent, sent);
    const { rows, bytes } = await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => {
      const all = storage.sql.exec<{ state: string }>("SELECT state FROM log_0 ORDER BY id").toArray();
      const { usage } = JSON.parse(all.at(-1)!.state) as { usage: { bytes: number } };
      return { rows: all.length, bytes: usage.bytes };
    });
    expect(rows).toBe(3);
    expect(bytes).toBe(sent.length + text.length);
    const [, call, answer] = await recordsOf(agent);
    expect(call).toMatchObject({ body: { trueBytes: sent.length }, rulesApplied: ["all"] });
    expect(answer).toMatchObject({ passedBytes: text.length, body: { trueBytes: text.length }, outcome: "complete" });
  });

  it("passes nothing of an answer that a switch overtook while it was read", async () => {
    const agent = await enrolAgent();
    const closed = Promise.withResolvers<void>();
    upstream(() => {
      const { readable, writable } = new IdentityTransformStream();
      const writer = writable.getWriter();
      void (async () => {
        await writer.write(new TextEncoder().encode('{"pin":"s3cret"'));
        void instanceStub(agent.id)
          .close(switchOf({ reach: "instance", target: { instance: agent.id } }))
          .finally(() => closed.resolve());
        // The close waits for the cut, so the rest of the answer waits for the close only as long as it needs to be there.
        await new Promise((resolve) => setTimeout(resolve, 300));
        await writer.write(new TextEncoder().encode("}"));
        await writer.close();
      })().catch(() => {});
      return new Response(readable, { headers: { "content-type": "application/json" } });
    });
    const { status, text } = await post(agent, "{}");
    await closed.promise;
    expect([status, text.includes("s3cret")]).toEqual([401, false]);
    const answer = (await recordsOf(agent)).find(({ type }) => type === "answer");
    expect(answer).toMatchObject({ outcome: "cut", cause: "switched", passedBytes: 0 });
  });
});
