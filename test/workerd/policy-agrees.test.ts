// What `policy explain` says of a call, against what the running gate does with it and puts on record.

import { afterEach, describe, expect, it, vi } from "vitest";
import { lineageOf, parseScope, readCall, type WrittenCall } from "../../scripts/policy/asked.ts";
import { explainCall } from "../../scripts/policy/explain-call.ts";
import type { Json } from "../../src/scope/call.ts";
import config, { ORIGIN } from "./config.ts";
import { type Agent, enrolAgent, recordsOf, SCOPE, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const COMMENTS = "POST /github/repos/acme/widgets/issues/7/comments";
const JSON_TYPE = { "content-type": "application/json" };

const CALLS: readonly WrittenCall[] = [
  { call: "GET /github/repos/acme/widgets/issues" },
  { call: "HEAD /github/repos/acme/widgets/issues" },
  { call: "GET /github/repos/evil/widgets/issues" },
  { call: "DELETE /github/repos/acme/widgets/issues" },
  { call: "GET /github/repos/acme/a%2Fb/issues" },
  { call: "GET /github/repos/acme/%252e%252e/issues" },
  { call: "GET /github/repos//widgets/issues" },
  { call: "GET /github/repos/acme/widgets/issues?a=1;b=2" },
  { call: "GET /github/repos/acme/widgets/issues?_method=DELETE" },
  { call: "GET /github/repos/acme/widgets/issues", headers: { "x-http-method-override": "DELETE" } },
  { call: "GET /nowhere/repos" },
  { call: "GET /github" },
  { call: COMMENTS, body: { body: "hello" } },
  { call: COMMENTS, body: '{"_method":"DELETE"}', headers: JSON_TYPE },
  { call: COMMENTS, body: "_method=DELETE", headers: { "content-type": "application/x-www-form-urlencoded" } },
  {
    call: "PUT /github/repos/acme/widgets/contents/a/b",
    body: "x".repeat(1_048_577),
    headers: { "content-type": "text/plain" },
  },
  {
    call: "PUT /github/repos/acme/widgets/contents/a/b",
    body: `a=${"x".repeat(1_048_577)}`,
    headers: { "content-type": "application/x-www-form-urlencoded" },
  },
];

/** What the gate decided, as it is on record. */
async function decidedOf(agent: Agent, { call, headers, body }: WrittenCall): Promise<Json> {
  const [method = "", path = ""] = call.split(" ");
  const { head, body: bytes } = readCall({ call, headers, body }, ORIGIN);
  const seen = (await recordsOf(agent)).length;
  const sent = Object.fromEntries(head.headers) as Record<string, string>;
  const init = { method, headers: sent, ...(bytes === null ? {} : { body: bytes as Uint8Array<ArrayBuffer> }) };
  await (await agent.call(path, init)).arrayBuffer();
  const line = (await recordsOf(agent)).slice(seen).find(({ type }) => type === "call" || type === "refused");
  return line?.["decision"] as Json;
}

describe("policy explain and the gate", () => {
  it.each(CALLS.map((call) => [call.call, call] as const))("say the same: %s", async (_name, written) => {
    const agent = await enrolAgent();
    upstream(() => new Response(null, { status: 204 }));
    const decision = (await decidedOf(agent, written)) as { readonly [field: string]: Json };
    const who = lineageOf(config, { groups: ["engineering"], agent: "triage-bot" }, Date.now());
    const explained = explainCall(config, readCall(written, ORIGIN), who, parseScope(SCOPE, "scope"));
    expect(explained.verdict).toBe(decision["allowed"] === true ? "allowed" : "refused");
    if (decision["allowed"] !== true) {
      expect(explained.layer).toBe(decision["layer"]);
      const { reason } = explained.layers.at(-1)!;
      if (reason !== undefined) expect(reason).toBe(decision["reason"]);
      return;
    }
    const by = explained.layers.filter(({ at }) => at !== undefined);
    const grant = by.find(({ layer }) => layer === "grant");
    expect([grant?.at, grant?.operation]).toEqual([
      `authorization_details[${decision["entry"]}]`,
      decision["operation"],
    ]);
    expect(
      by.filter(({ layer }) => layer !== "grant").map(({ layer, at, operation }) => ({ layer, at, operation })),
    ).toEqual(decision["ceilings"]);
  });
});
