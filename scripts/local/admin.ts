// The admin API's client, as the tour and the commands use it.

import { z } from "zod";

const member = z.object({
  instance: z.string(),
  human: z.string(),
  task: z.string(),
  agent: z.string(),
  agentVersion: z.string(),
  upstreams: z.array(z.string()),
  deadlineMs: z.number(),
  enlistedAtMs: z.number(),
  state: z.enum(["live", "paused", "killed"]),
});
const listing = z.object({ instances: z.array(member) });
/** Times are on the gate's clock. */
const receipt = z.object({
  switch: z.object({ id: z.string() }),
  status: z.enum(["done", "pending", "accepted", "resumed"]),
  reached: z.number(),
  cut: z.number(),
  unconfirmed: z.number(),
  acceptedAtMs: z.number(),
  lastAcknowledgedAtMs: z.number().nullable(),
  lastByteAtMs: z.number().nullable(),
  jws: z.string(),
});

const approvalsPage = z.object({
  approvals: z.array(z.object({ id: z.string(), instance: z.string(), state: z.string(), method: z.string() })),
});

export type Member = z.infer<typeof member>;
export type KillReceipt = z.infer<typeof receipt>;

export interface TranscriptOf {
  readonly human: string;
  readonly task: string;
  readonly instance: string;
}

export interface Admin {
  /** Live instances, killed ones too until their transcript ends. */
  list(): Promise<readonly Member[]>;
  kill(instance: string, reason: string): Promise<KillReceipt>;
  /** The human has these groups, of those that the configuration names, and no others any more. */
  narrow(human: string, groups: readonly string[], reason: string): Promise<KillReceipt>;
  /** Calls of this instance that can be decided, newest first. */
  waiting(instance: string): Promise<readonly string[]>;
  approve(approval: string, reason: string): Promise<void>;
  /** Exact lines, oldest first. */
  transcript(of: TranscriptOf): Promise<readonly string[]>;
}

/** `signIn` gives an admin's ID token, issued to the gate's admin client. */
export function createAdmin(gate: string, signIn: () => Promise<string>): Admin {
  let token: Promise<string> | undefined;
  const ask = async (path: string, body?: unknown): Promise<Response> => {
    token ??= signIn();
    const response = await fetch(`${gate}/admin/v1/${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${await token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`the admin API answered ${response.status}: ${await response.text()}`);
    return response;
  };
  return {
    list: async () => listing.parse(await (await ask("instances")).json()).instances,
    kill: async (instance, reason) =>
      receipt.parse(
        await (await ask("switches", { reach: "instance", target: { instance }, act: "kill", reason })).json(),
      ),
    narrow: async (human, groups, reason) =>
      receipt.parse(await (await ask(`humans/${human}/groups`, { groups, reason })).json()),
    waiting: async (instance) => {
      const { approvals } = approvalsPage.parse(await (await ask("approvals")).json());
      return approvals.filter((one) => one.instance === instance && one.state === "asked").map(({ id }) => id);
    },
    approve: async (approval, reason) => {
      await (await ask(`approvals/${approval}/approve`, { reason })).body?.cancel();
    },
    transcript: async ({ human, task, instance }) => {
      const text = await (await ask(`transcripts/${human}/${task}/${instance}`)).text();
      return text.split("\n").filter((line) => line !== "");
    },
  };
}
