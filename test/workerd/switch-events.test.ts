// What the admin's door says of a switch over an event stream, and what stays of it.

import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { createHash } from "node:crypto";
import { expect, it } from "vitest";
import { admin } from "../../src/admin/admin.ts";
import type { Deployment } from "../../src/deployment.ts";
import { deployment, journalLines } from "./kit.ts";

const PATH = "/admin/v1/switches";
const KEY = `pbg_${"k".repeat(43)}`;
const held: Deployment = {
  ...deployment,
  config: { ...deployment.config, admins: { ...deployment.config.admins, breakGlass: { night: "NIGHT_KEY" } } },
  env: { ...deployment.env, NIGHT_KEY: createHash("sha256").update(KEY).digest("hex") },
};

async function kill(human: string, key: string, accept: string): Promise<string> {
  const ctx = createExecutionContext();
  const body = JSON.stringify({ act: "kill", reach: "human", target: { human }, reason: "test" });
  const headers = { authorization: `Bearer ${KEY}`, "idempotency-key": key, accept };
  const response = await admin.request(PATH, { method: "POST", headers, body }, { deployment: held }, ctx);
  const text = await response.text();
  await waitOnExecutionContext(ctx);
  return text;
}

it.each([
  "application/json",
  "text/event-stream",
])("a key that was used for another switch is a refusal, and on record: %s", async (accept) => {
  const refusals = async () => (await journalLines("admin")).filter(({ type }) => type === "refused");
  const before = (await refusals()).length;
  const key = crypto.randomUUID();
  await kill("one", key, accept);
  expect(await kill("another", key, accept)).toContain("Idempotency-Key: used for another switch");
  expect((await refusals()).slice(before)).toMatchObject([
    { path: PATH, by: "break-glass:night", reason: "Idempotency-Key: used for another switch" },
  ]);
});
