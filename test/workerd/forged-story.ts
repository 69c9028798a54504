import { env } from "cloudflare:test";
import { expect, vi } from "vitest";
import { instanceOf } from "../../src/objects.ts";
import { ok } from "../../src/result.ts";
import { instancePartition } from "../../src/transcript/layout.ts";
import { verifyTranscripts } from "../../src/transcript/verify.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { keysOf, type Objects } from "../unit/transcript-kit.ts";
import { decide, heard, put } from "./approval-kit.ts";
import { ORIGIN } from "./config.ts";
import { alarmAt, childOf, LEAD, rootOf, soon } from "./family-kit.ts";
import { type Agent, deployment, enrolAgent, flip, ISSUES, SCOPE, settlement, upstream } from "./kit.ts";
import { abortInstance } from "./quota-kit.ts";
import { modelCalls } from "./quotas-config.ts";

/** Transcripts of every kind of record, as a gate has really written them, up to their sealed ends. */
export interface Story {
  readonly objects: Objects;
  readonly deadlineMs: number;
  /** One that calls, pays, and asks a person, and whose object is reset. */
  readonly worker: string;
  readonly killed: string;
  readonly parent: string;
  readonly child: string;
}

const HUMAN = "human-forged";
const TASK = "build-platform_forged";
const utf8 = new TextEncoder();
/** Before a request for approval would expire by itself. */
const deadlineMs = Math.ceil(Date.now() / 1000) * 1000 + 3_000_000;
const of = { human: HUMAN, task: { id: TASK, purpose: "test", deadlineMs } };
export const partitionOf = (instance: string): string => instancePartition({ human: HUMAN, task: TASK, instance });

/** A model's call: its scope asks for a fact of its body. */
async function askModel(agent: Agent) {
  const admission = await instanceOf(deployment, agent.id).admit(
    agent.admission({
      call: {
        upstream: "model",
        method: "POST",
        segments: ["v1", "chat"],
        query: [],
        body: { kind: "json", value: { max_tokens: 10 } },
      },
      permit: { entry: 1, operation: "POST /v1/chat" },
      request: {
        method: "POST",
        target: "/model/v1/chat",
        headers: [],
        body: utf8.encode('{"max_tokens":10}'),
        bodyFollows: false,
      },
    }),
  );
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission.lease;
}

const WHOLE = { passedBytes: 2, heldBytes: 0, forwardedBytes: 17 };

async function writeWorker(): Promise<string> {
  const agent = await enrolAgent({
    ...of,
    agent: "ample-bot",
    scope: [...SCOPE, { ...modelCalls, where: { "body./max_tokens": { max: 4_000 } } }] as never,
    limits: { ...deployment.config.agents["ample-bot"]!.limits, units: { usd: 1 } },
  });
  await (await agent.call(ISSUES)).text();
  await (await agent.call(`${ISSUES}?state=open`)).text();
  const units = { "input-tokens": 10, "output-tokens": 20, usd: 0.00033 };
  await (await askModel(agent)).settle(settlement({ ...WHOLE, units }));
  await (await askModel(agent)).settle(settlement({ ...WHOLE, outcome: "client-gone" }));
  expect((await put(agent)).status).toBe(503);
  await heard(agent);
  await decide(agent);
  const passed = await put(agent);
  expect([passed.status, await passed.text()]).toEqual([200, "[]"]);
  await askModel(agent);
  await abortInstance(agent);
  await alarmAt(agent.id, deadlineMs + 1);
  return agent.id;
}

async function writeKilled(): Promise<string> {
  const agent = await enrolAgent(of);
  await (await agent.call(ISSUES)).text();
  await flip({ reach: "instance", target: { instance: agent.id } });
  expect((await agent.call(ISSUES)).status).toBe(401);
  await alarmAt(agent.id, Date.now() + 302_000);
  return agent.id;
}

async function writeFamily(): Promise<readonly [parent: string, child: string]> {
  const root = await rootOf({ ...of, limits: { ...LEAD, units: { usd: 5 } } });
  const one = await childOf(root, { task_limits: JSON.stringify({ calls: 10, units: { usd: 1 } }) });
  expect(await one.call()).toBe(200);
  expect(await root.call()).toBe(200);
  await alarmAt(one.id, deadlineMs + 1);
  await soon(async () => {
    const read = await instanceOf(deployment, root.id).read(0, 100);
    expect(read!.lines.some((line) => line.includes('"act":"return"'))).toBe(true);
  });
  await alarmAt(root.id, deadlineMs + 1);
  return [root.id, one.id];
}

async function readBucket(): Promise<Objects> {
  const objects: Objects = new Map();
  for (const prefix of ["transcripts", "bodies"]) {
    const listed = await env.TRANSCRIPTS.list({ prefix: `${prefix}/human=${HUMAN}/` });
    for (const { key } of listed.objects) objects.set(key, await (await env.TRANSCRIPTS.get(key))!.bytes());
  }
  return objects;
}

export async function writeStory(): Promise<Story> {
  upstream(() => Response.json([]));
  const worker = await writeWorker();
  const killed = await writeKilled();
  const [parent, child] = await writeFamily();
  vi.restoreAllMocks();
  return { objects: await readBucket(), deadlineMs, worker, killed, parent, child };
}

export const verify = (objects: Objects, bodies = true): Promise<VerifyReport> =>
  verifyTranscripts(
    {
      keys: (prefix) => [...objects.keys()].filter((key) => key.startsWith(prefix)),
      open: async (key) => ok(new Response(objects.get(key)).body as unknown as AsyncIterable<Uint8Array>),
    },
    { keys: keysOf(deployment.sealKeys), issuer: ORIGIN, nowMs: Date.now(), bodies },
  );
