import { runInDurableObject } from "cloudflare:test";
import { expect, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { RESUMABLE_MS } from "../../durable-objects/orphans.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { type Agent, ISSUES, instanceStub, type Line, recordsOf, upstream } from "./kit.ts";
import { flush, storedAnswer, storedBody, verified } from "./raw-kit.ts";

/** A call through the gate, whose upstream the test is. */
export interface Streaming {
  /** A run of the upstream's answer. */
  say(text: string): void;
  end(): void;
  /** What the agent has got so far. */
  readonly got: () => string;
  /** How it came to its end: `whole`, or `cut`. */
  readonly over: Promise<"whole" | "cut">;
  /** The upstream's connection was closed from this side. */
  readonly isClosed: () => boolean;
}

const utf8 = new TextEncoder();

/** The test and the gate run in contexts of their own: the upstream looks in turns for what the test has left for it. */
export async function stream(agent: Agent, type = "text/event-stream"): Promise<Streaming> {
  const said: Uint8Array[] = [];
  let isOver = false;
  let isClosed = false;
  upstream((request) => {
    request.signal.addEventListener("abort", () => {
      isClosed = true;
    });
    const pull = async (controller: ReadableByteStreamController): Promise<void> => {
      while (said.length === 0 && !isOver && !isClosed) await new Promise((resolve) => setTimeout(resolve, 2));
      const run = said.shift();
      if (run !== undefined) return controller.enqueue(run);
      controller.close();
      (controller.byobRequest as { respond(bytes: number): void } | null)?.respond(0);
    };
    const cancel = (): void => {
      isClosed = true;
    };
    return new Response(new ReadableStream({ type: "bytes", pull, cancel } as UnderlyingByteSource), {
      headers: { "content-type": type },
    });
  });
  const response = await agent.call(ISSUES);
  expect(response.status).toBe(200);
  let got = "";
  const over = (async () => {
    try {
      for await (const run of response.body!) got += new TextDecoder().decode(run);
      return "whole" as const;
    } catch {
      return "cut" as const;
    }
  })();
  return {
    say: (text) => void said.push(utf8.encode(text)),
    end: () => {
      isOver = true;
    },
    got: () => got,
    over,
    isClosed: () => isClosed,
  };
}

/** Until the agent has got exactly this. */
export const until = (streaming: Streaming, text: string): Promise<void> =>
  vi.waitFor(() => expect(streaming.got()).toBe(text));

export async function answerOf(agent: Agent, call: number): Promise<Line | undefined> {
  const answers = (await recordsOf(agent)).filter((line) => line.type === "answer" && line["call"] === call);
  expect(answers.length).toBeLessThanOrEqual(1);
  return answers[0];
}

/** The transcript in R2 verifies, no call is open, and this call has one answer with exactly this body. */
export async function expectRecorded(agent: Agent, call: number, text: string, outcome = "complete"): Promise<Line> {
  await flush(agent);
  expect((await verified(agent)).openCalls).toEqual([]);
  const answer = await storedAnswer(agent, call);
  expect([answer["outcome"], (await storedBody(agent, call, "answer")).toString()]).toEqual([outcome, text]);
  if (text !== "") expect(answer.body.bytes).toBe(utf8.encode(text).byteLength);
  return answer;
}

/** Data that no two seeds share. */
export const noiseText = (length: number, seed: number): string => {
  const bytes = new Uint8Array(length);
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return encodeBase64url(bytes).slice(0, length);
};

/** Nobody takes up again what ran when the object was reset, in time. */
export async function giveUpOrphans(agent: Agent): Promise<void> {
  const stub = () => instanceStub(agent.id);
  // The object is there before the clock goes on.
  await runInDurableObject(stub(), () => {});
  const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + RESUMABLE_MS);
  await runInDurableObject(stub(), (instance) => instance.alarm());
  clock.mockRestore();
}

/** As where nothing is there any more to be taken up. Until mocks are restored. */
export const refuseResumptions = () =>
  vi.spyOn(AgentInstance.prototype, "resume").mockResolvedValue({ kind: "refused" });
