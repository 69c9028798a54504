// The sidecar's own door for sub-agents: what it refuses before anything is signed for a child, or sent to the gate.

import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { createSubAgents } from "../../scripts/sidecar/sub-agents.ts";
import { createInstanceKey } from "../../src/agent/agent-fetch.ts";
import type { HeldGrant } from "../../src/agent/held-grant.ts";
import { createProof } from "../../src/agent/instance-key.ts";

const asked: string[] = [];
const grant = {
  origin: "http://127.0.0.1:9",
  delegate: async (child: string) => {
    asked.push(`delegate ${child}`);
    return { subject_token: "t", subject_token_proof: "p" };
  },
  endChild: async (child: string) => {
    asked.push(`end ${child}`);
    return true;
  },
} as unknown as HeldGrant;

let server: Server;
let origin: string;
let proof: string;
beforeAll(async () => {
  const subAgents = createSubAgents({ grant, onApart: () => void asked.push("apart") });
  server = createServer((request, response) => {
    if (!subAgents.serve(request, response)) response.writeHead(204).end();
  });
  origin = `http://127.0.0.1:${await listenOnLoopback(server, 0)}`;
  proof = await createProof(await createInstanceKey(), "POST", `${grant.origin}/oauth/token`);
});
afterAll(() => closeServer(server));
beforeEach(() => void asked.splice(0));

const ask = async (path: string, init: RequestInit): Promise<string> => {
  const answer = await fetch(`${origin}/.portcullis${path}`, init);
  const { detail = "" } = (await answer.json().catch(() => ({}))) as { detail?: string };
  return `${answer.status} ${detail}`;
};
const post = (body: string, headers: Record<string, string> = { DPoP: proof }) =>
  ask("/sub-agents", { method: "POST", body, headers });

it.each<[name: string, body: string, reason: string]>([
  ["a parameter twice", "agent=a&agent=b", "agent is given twice"],
  ["a parameter twice, once empty", "task_limits=&task_limits={}", "task_limits is given twice"],
  ["its parent's word on another", "subject_token=x", "subject_token is not a parameter of a sub-agent"],
  ["its parent's proof for another", "subject_token_proof=x", "subject_token_proof is not a parameter of a sub-agent"],
  ["another grant type", "grant_type=refresh_token", "grant_type is not a parameter of a sub-agent"],
  ["another task", "task=t", "task is not a parameter of a sub-agent"],
  ["a client's assertion", "client_assertion=x", "client_assertion is not a parameter of a sub-agent"],
  ["what every object has", "__proto__=x", "__proto__ is not a parameter of a sub-agent"],
  ["a long name", `${"n".repeat(50)}=x`, `${"n".repeat(40)} is not a parameter of a sub-agent`],
  ["a form too long", `purpose=${"p".repeat(65_536)}`, "a form of more than 65536 bytes"],
])("refuses %s, and signs nothing", async (_name, body, reason) => {
  expect(await post(body)).toBe(`400 portcullis agent: ${reason}`);
  expect(asked).toEqual([]);
});

it.each<[name: string, headers: Record<string, string>]>([
  ["no proof", {}],
  ["what is no JWT", { DPoP: "x" }],
  ["a JWT without a key", { DPoP: `${Buffer.from('{"alg":"ES256"}').toString("base64url")}.e30.eA` }],
])("refuses %s, and signs nothing", async (_name, headers) => {
  expect(await post("agent=a", headers)).toContain(
    "400 portcullis agent: a DPoP proof by the sub-agent's key is required",
  );
  expect(asked).toEqual([]);
});

it("ends by a thumbprint alone, and knows no other path or method", async () => {
  for (const id of ["", "x", "a".repeat(42), "a".repeat(44), `${"a".repeat(42)}%41`, `${"a".repeat(43)}/..%2f`])
    expect(await ask(`/sub-agents/${id}`, { method: "DELETE" })).toMatch(/^400 .*does not end in a thumbprint$/);
  expect(await ask(`/sub-agents/${"a".repeat(43)}`, { method: "POST" })).toMatch(/^404 /);
  expect(await ask("/sub-agents", { method: "PUT" })).toMatch(/^404 /);
  expect(await ask("/grant", { method: "GET" })).toMatch(/^404 /);
  expect(asked).toEqual([]);
  expect(await ask(`/sub-agents/${"a".repeat(43)}`, { method: "DELETE" })).toBe("204 ");
  expect(asked).toEqual([`end ${"a".repeat(43)}`]);
});
