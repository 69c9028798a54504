// Calls, decisions, repeated ones, time, resets and a kill, in any order and at once: what the transcript then says of each request
// is one story, the desk and the journal tell the same, and what reached the upstream is what people let pass.

import { runDurableObjectAlarm } from "cloudflare:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { afterEach, expect, it, vi } from "vitest";
import type { DecideAnswer } from "../../src/approval/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { instancePartition } from "../../src/transcript/layout.ts";
import { ApprovalReader } from "../../src/transcript/verify-approvals.ts";
import { actsOf, decision, desk, fileIn, put, requestsOf, reset, resetDesk, ring } from "./approval-kit.ts";
import { type Agent, deployment, deskStub, enrolAgent, type Line, recordsOf, switchOf, upstream } from "./kit.ts";

const PATIENCE = { timeout: 15_000 };
const now = Date.now.bind(Date);
afterEach(() => vi.restoreAllMocks());

/** `validSeconds` 30, `expireSeconds` 60. */
const SHORT = fileIn("vault-short");
const BODIES = ["one", "two"];
type Deed =
  | { readonly do: "call"; readonly body: number }
  | { readonly do: "decide"; readonly verdict: "approved" | "denied"; readonly by: string; readonly which: number }
  | { readonly do: "wait"; readonly seconds: number }
  | { readonly do: "ring" | "ring desk" | "reset" | "reset desk" | "kill" };

const call = fc.record({ do: fc.constant("call" as const), body: fc.nat({ max: BODIES.length - 1 }) });
const decide = fc.record({
  do: fc.constant("decide" as const),
  verdict: fc.constantFrom("approved" as const, "approved" as const, "denied" as const),
  by: fc.constantFrom("olga", "omar", "human-1"),
  which: fc.nat({ max: 3 }),
});
const deed: fc.Arbitrary<Deed> = fc.oneof(
  { weight: 6, arbitrary: call },
  { weight: 6, arbitrary: decide },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("wait" as const), seconds: fc.constantFrom(5, 31, 61) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("ring" as const, "ring desk" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("reset" as const, "reset desk" as const) }) },
  { weight: 1, arbitrary: fc.constant({ do: "kill" as const }) },
);
/** What is done at once, one group after the other. */
const script = fc.array(fc.array(deed, { minLength: 1, maxLength: 5 }), { minLength: 4, maxLength: 8 });

interface Seen {
  /** Statuses of the agent's calls. */
  readonly statuses: number[];
  /** Bodies that reached the upstream. */
  readonly sent: string[];
  readonly answers: { readonly id: string; readonly by: string; readonly answer: DecideAnswer }[];
}

async function play(agent: Agent, groups: readonly (readonly Deed[])[], clock: { aheadMs: number }): Promise<Seen> {
  const seen: Seen = { statuses: [], sent: [], answers: [] };
  upstream(async (request) => {
    if (request.url.startsWith("https://hooks.test")) return new Response(null, { status: 200 });
    seen.sent.push(await request.text());
    return Response.json({});
  });
  const one = async (what: Deed): Promise<void> => {
    switch (what.do) {
      case "call":
        seen.statuses.push((await put(agent, BODIES[what.body], SHORT)).status);
        return;
      case "decide": {
        const known = await requestsOf(agent);
        const request = known[known.length - 1 - (what.which % Math.max(1, known.length))];
        if (request === undefined) return;
        const { verdict, by } = what;
        const change = { verdict, by, emailDigest: `${by}-digest` };
        const answer = await desk().decide(request.id, decision(change));
        seen.answers.push({ id: request.id, by, answer });
        return;
      }
      case "wait":
        clock.aheadMs += what.seconds * 1_000;
        return;
      case "ring":
        await ring(agent);
        return;
      case "ring desk":
        await runDurableObjectAlarm(deskStub());
        return;
      case "reset":
        return reset(agent);
      case "reset desk":
        return resetDesk();
      case "kill":
        await instanceOf(deployment, agent.id).close(
          switchOf({ reach: "instance", target: { instance: agent.id }, atMs: Date.now() }),
        );
    }
  };
  // A reset may break what runs beside it: then nobody knows what came of it, and it must be one story all the same.
  for (const group of groups) await Promise.all(group.map((what) => one(what).catch(() => {})));
  return seen;
}

/** Records under a prefix of the bucket. */
async function storedUnder(prefix: string): Promise<readonly Line[]> {
  const lines: Line[] = [];
  const { objects } = await deployment.env.TRANSCRIPTS.list({ prefix });
  for (const { key } of objects) {
    const zipped = new Uint8Array(await (await deployment.env.TRANSCRIPTS.get(key))!.arrayBuffer());
    for (const text of gunzipSync(zipped).toString().trimEnd().split("\n")) lines.push(JSON.parse(text) as Line);
  }
  return lines.filter(({ type }) => type !== "seal");
}

async function allRecordsOf(agent: Agent): Promise<readonly Line[]> {
  const { human, task } = agent.enrolment;
  const partition = instancePartition({ human, task: task.id, instance: agent.id });
  const all = [...(await storedUnder(`transcripts/${partition}/`)), ...(await recordsOf(agent))];
  return [...new Map(all.map((line) => [line.seq, line])).values()].sort((one, other) => one.seq - other.seq);
}

const decidersOf = async (id: string): Promise<ReadonlySet<string>> => {
  const left = (await storedUnder("transcripts/journal=admin/")).filter(({ approval }) => approval === id);
  const acts = [...left, ...(await actsOf(id))].filter(({ deed: what }) => what === "approve" || what === "deny");
  return new Set(acts.map(({ deed: what, by }) => `${String(what)} ${String(by)}`));
};

const verdicts = (lines: readonly Line[], id: string) =>
  lines.filter(({ approval, state }) => approval === id && (state === "approved" || state === "denied"));

it("whatever happens at once, each request is one story, and nothing passes without it", {
  timeout: 60_000,
}, async () => {
  const kinds = new Set<string>();
  await fc.assert(
    fc.asyncProperty(script, async (groups) => {
      vi.restoreAllMocks();
      const clock = { aheadMs: 0 };
      vi.spyOn(Date, "now").mockImplementation(() => now() + clock.aheadMs);
      const agent = await enrolAgent();
      const seen = await play(agent, groups, clock);

      // Told until it is heard.
      await vi.waitFor(async () => {
        await ring(agent);
        await runDurableObjectAlarm(deskStub());
        const told = new Map((await requestsOf(agent)).map(({ id, state }) => [id, state]));
        const last = new Map<unknown, unknown>();
        for (const { type, approval, state } of await allRecordsOf(agent))
          if (approval !== undefined) last.set(approval, type === "call" ? "used" : state);
        expect(told).toEqual(last);
      }, PATIENCE);

      const lines = await allRecordsOf(agent);
      const reader = new ApprovalReader();
      const problems = lines.map((line) =>
        line.type === "approval" ? reader.read(line) : line.type === "call" ? reader.readCall(line) : null,
      );
      expect(problems.filter((problem) => problem !== null)).toEqual([]);

      // Every call that was admitted was approved, and what left was admitted; an answer may have been lost.
      const calls = lines.filter(({ type }) => type === "call");
      for (const { approval } of calls)
        expect(verdicts(lines, String(approval))).toMatchObject([{ state: "approved" }]);
      expect(seen.sent.length).toBeLessThanOrEqual(calls.length);
      expect(seen.statuses.filter((status) => status === 200).length).toBeLessThanOrEqual(seen.sent.length);
      const killed = lines.findIndex(({ type }) => type === "switched");
      if (killed !== -1) for (const { type, state } of lines.slice(killed)) expect([type, state]).not.toContain("call");
      if (killed !== -1) expect(lines.slice(killed).map(({ state }) => state)).not.toContain("approved");

      // Who was told that it is decided, was told what stands there.
      for (const { id, by, answer } of seen.answers) {
        if (by === "human-1") expect(answer.kind).not.toBe("decided");
        if (answer.kind === "decided")
          expect(verdicts(lines, id)).toMatchObject([{ by, state: answer.approval.decision?.verdict }]);
        kinds.add(answer.kind);
      }
      const firsts = seen.answers.filter(({ answer }) => answer.kind === "decided" && !answer.isRepeated);
      expect(new Set(firsts.map(({ id }) => id)).size).toBe(firsts.length);

      await vi.waitFor(async () => {
        await runDurableObjectAlarm(deskStub());
        for (const { id, decision: decided } of await requestsOf(agent)) {
          const deed = decided?.verdict === "approved" ? "approve" : "deny";
          expect([...(await decidersOf(id))]).toEqual(decided === null ? [] : [`${deed} ${decided.by}`]);
        }
      }, PATIENCE);
      for (const { type, state } of lines) kinds.add(state === undefined ? type : String(state));
    }),
    { numRuns: 25, includeErrorInReport: true },
  );
  // It was about something.
  for (const kind of ["approved", "denied", "expired", "cancelled", "call", "switched", "decided", "over", "forbidden"])
    expect(kinds).toContain(kind);
});
