import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, vi } from "vitest";
import type { ApprovalSummary, DecideAnswer, DecideRequest } from "../../src/approval/contract.ts";
import { approvalDeskOf } from "../../src/objects.ts";
import { type Agent, deployment, deskStub, instanceStub, journalLines, type Line, recordsOf } from "./kit.ts";

/** Calls that are held back, and people who decide about them. */
export const fileIn = (repo: string, file = "a.txt"): string => `/github/repos/acme/${repo}/contents/${file}`;
export const VAULT = fileIn("vault");

export const put = (agent: Agent, body = "one", path = VAULT, more: RequestInit = {}): Promise<Response> =>
  agent.call(path, { method: "PUT", body, headers: { "content-type": "text/plain" }, ...more });

export const desk = () => approvalDeskOf(deployment);

export const decision = (change: Partial<DecideRequest> = {}): DecideRequest => ({
  verdict: "approved",
  by: "olga",
  email: "olga@acme.example",
  emailDigest: "olga-digest",
  groups: [],
  reason: "looked at it",
  ...change,
});

/** The agent's requests as the desk has them, oldest first. */
export const requestsOf = async (agent: Agent): Promise<readonly ApprovalSummary[]> =>
  (await desk().list("all", null, 500)).filter(({ instance }) => instance === agent.id).toReversed();

/** A busy machine takes longer than the second that is usual. */
export const until = <T>(reached: () => T | Promise<T>): Promise<T> => vi.waitFor(reached, { timeout: 10_000 });

/** The desk has heard of so many. */
export const heard = (agent: Agent, count = 1): Promise<readonly ApprovalSummary[]> =>
  until(async () => {
    const found = await requestsOf(agent);
    expect(found).toHaveLength(count);
    return found;
  });

export async function decide(agent: Agent, change: Partial<DecideRequest> = {}): Promise<DecideAnswer> {
  const newest = (await heardOf(agent)).at(-1)!;
  return desk().decide(newest.id, decision(change));
}
const heardOf = (agent: Agent) =>
  until(async () => {
    const found = await requestsOf(agent);
    expect(found.some(({ state }) => state === "asked")).toBe(true);
    return found;
  });

/** `approval asked`, `call`, and so on, without answers. */
export const storyOf = async (agent: Agent): Promise<string[]> =>
  (await recordsOf(agent))
    .filter(({ type }) => type !== "enrolled" && type !== "answer")
    .map(({ type, state }) => (state === undefined ? type : `${type} ${String(state)}`));

export const reasonOf = (line: Line | undefined): unknown => (line?.["decision"] as { reason?: unknown })?.reason;

/** Its storage stays. */
export const reset = (agent: Agent): Promise<void> =>
  runInDurableObject(instanceStub(agent.id), (_i, state) => state.abort("reset by a test")).catch(() => {});
export const resetDesk = (): Promise<void> =>
  runInDurableObject(deskStub(), (_d, state) => state.abort("reset by a test")).catch(() => {});
export const ring = (agent: Agent) => runDurableObjectAlarm(instanceStub(agent.id));

/** What admins did, that has not left for the bucket. */
export const actsOf = async (id: string): Promise<readonly Line[]> =>
  (await journalLines("admin")).filter(({ type, approval }) => type === "act" && approval === id);
