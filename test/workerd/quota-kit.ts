import { env, runInDurableObject } from "cloudflare:test";
import type { Quota } from "../../durable-objects/quota.ts";
import type { Admission, Enrolment } from "../../src/instance/contract.ts";
import { instanceOf, quotaOf } from "../../src/objects.ts";
import { type Agent, deployment, enrolAgent, instanceStub, settlement } from "./kit.ts";

/** Instances that share one quota, each test's with a key of its own. */
export const ofTask = (agent: string, task = `build-platform_${crypto.randomUUID()}`): Partial<Enrolment> => ({
  agent,
  task: { id: task, purpose: "test", deadlineMs: Date.now() + 3_600_000 },
  limits: deployment.config.agents[agent]!.limits,
});

export async function team(agent: string, size: number): Promise<{ readonly task: string; readonly members: Agent[] }> {
  const change = ofTask(agent);
  const members = await Promise.all(Array.from({ length: size }, () => enrolAgent(change)));
  return { task: change.task!.id, members };
}

export const quotaStub = (name: string) => env.QUOTA.get(env.QUOTA.idFromName(name)) as DurableObjectStub<Quota>;
export const readQuota = (name: string) => quotaOf(deployment, name).read();

/** As an object that dies in the middle: what was not durable is lost. */
export async function abort(stub: DurableObjectStub<undefined>): Promise<void> {
  await runInDurableObject(stub, (_object, state) => state.abort("a test")).catch(() => {});
}
export const abortInstance = (agent: Agent): Promise<void> =>
  abort(instanceStub(agent.id) as DurableObjectStub<undefined>);

export const ask = (agent: Agent): Promise<Admission> => instanceOf(deployment, agent.id).admit(agent.admission());

/** What came of it, in one word; `lost` where the object died. */
export async function verdict(asked: Promise<Admission>): Promise<string> {
  const admission = await asked.catch(() => null);
  if (admission === null) return "lost";
  if (admission.admitted) return "admitted";
  const { denial } = admission;
  return "quota" in denial ? `${denial.kind} by ${denial.quota!.split(".", 1)[0]}` : denial.kind;
}

/** Asks again where the shared limits were too slow for a call: on a busy machine that takes nothing from anybody, and says nothing of them. */
export async function decided(again: () => Promise<Admission>): Promise<string> {
  for (;;) {
    const word = await verdict(again());
    if (word !== "unavailable") return word;
  }
}

export function count(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

/** What the next call is told that is left of the instance's own bytes. */
export async function bytesLeft(agent: Agent): Promise<number> {
  const admission = await ask(agent);
  if (admission.admitted) await admission.lease.settle(settlement({ outcome: "not-sent", tail: new Uint8Array(0) }));
  return admission.limits!.bytes;
}
