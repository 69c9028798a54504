// Hundreds of calls of mixed kinds from many instances, some under way and some about to begin when a switch comes; and what the
// upstream's own log, the agents' sockets and the transcripts must then say of each other.

import { chosen } from "../chosen.ts";
import type { Random } from "../random.ts";
import type { GateRig, Heard, Instance, Line } from "./gate-rig.ts";
import { pause, type Seen } from "./hostile-upstream.ts";
import type { Copy, SignedReceipt } from "./kill-rig.ts";

/** What takes long is under way when the switch comes; the others begin around it. */
const UNDER_WAY = ["sse", "hang", "dribble", "trickle"] as const;
const LONG = [...UNDER_WAY, ...UNDER_WAY, "upload", ...UNDER_WAY, ...UNDER_WAY] as const;
const SHORT = ["plain", "plain", "plain", "hang", "late", "sse"] as const;
export type Kind = (typeof LONG)[number] | (typeof SHORT)[number];
const UPLOAD_BYTES = 1_310_720;
const RUN_BYTES = 65_536;
/** Between the moment that a socket had something and the moment that this busy process read it. */
export const SLACK_MS = 1_500;

export interface Asked {
  readonly n: number;
  readonly kind: Kind;
  readonly who: Instance;
  readonly target: string;
  /** As the agent's socket has it: null where no answer began. */
  heard: Heard | null;
  bytes: number;
  lastByteAtMs: number;
  startedAtMs: number;
}

export interface Flood {
  readonly asked: readonly Asked[];
  /** Begins calls that all begin after now. */
  begin(count: number, kinds: readonly Kind[], of: readonly Instance[]): Promise<void>;
  /** How many of the connections to the upstream are open, of these. */
  openOf(ids: ReadonlySet<string>): number;
  /** The upstream ends whatever still runs, and all agents hear their end. */
  over(): Promise<void>;
}

let count = 0;

/** Serves every kind, and begins `underWay` long calls; answers when the upstream has them. */
export async function startFlood(rig: GateRig, of: readonly Instance[], underWay: number): Promise<Flood> {
  const random = chosen();
  let isOver = false;
  serve(rig, () => isOver);
  const asked: Asked[] = [];
  const running: Promise<void>[] = [];

  const begin = async (howMany: number, kinds: readonly Kind[], among: readonly Instance[]) => {
    for (let i = 0; i < howMany; i++) {
      const n = ++count;
      const kind = kinds[i % kinds.length]!;
      const who = among[Math.floor(i / kinds.length) % among.length]!;
      const startedAtMs = Date.now();
      const one: Asked = {
        n,
        kind,
        who,
        target: `/hostile/${kind}?n=${n}`,
        heard: null,
        bytes: 0,
        lastByteAtMs: 0,
        startedAtMs,
      };
      asked.push(one);
      const onData = (run: Buffer, atMs: number) => {
        one.bytes += run.length;
        one.lastByteAtMs = atMs;
      };
      const method = kind === "upload" || kind === "late" ? "PUT" : "GET";
      const body = kind === "upload" ? longBody(() => isOver) : kind === "late" ? lateBody(random) : undefined;
      const call = rig.call(who, one.target, { method, onData, ...(body === undefined ? {} : { body }) });
      running.push(
        call.then(
          (heard) => {
            one.heard = heard;
          },
          () => {},
        ),
      );
      // A gate reads so many bodies at a time, and no more.
      if (kind === "upload") await pause(10);
      else if (i % 10 === 9) await pause(1);
    }
  };

  await begin(underWay, LONG, of);
  const isUnderWay = ({ kind, target }: Asked): boolean => {
    const [seen] = rig.upstream.requests(`/${kind}`).filter((one) => `/hostile${one.target}` === target);
    return seen !== undefined && (kind !== "upload" || seen.bytesIn > 0);
  };
  for (const endMs = Date.now() + 30_000; !asked.every(isUnderWay); await pause(50))
    if (Date.now() > endMs) throw new Error("the flood did not get under way");
  return {
    asked,
    begin,
    openOf: (ids) => {
      const targets = new Set(asked.filter(({ who }) => ids.has(who.id)).map(({ target }) => target));
      const ours = rig.upstream.requests().filter(({ target }) => targets.has(`/hostile${target}`));
      return ours.filter(({ closedAtMs }) => closedAtMs === 0).length;
    },
    over: async () => {
      isOver = true;
      await Promise.all(running);
    },
  };
}

/** More than a gate reads before it admits, then a little at a time. */
async function* longBody(isOver: () => boolean): AsyncGenerator<Buffer> {
  yield Buffer.alloc(UPLOAD_BYTES, "long body ");
  for (let i = 0; i < 2_000 && !isOver(); i++) {
    yield Buffer.alloc(RUN_BYTES, "and on ");
    await pause(100);
  }
}

/** Short, and not whole before a moment later: it is admitted then, or not at all. */
async function* lateBody(random: Random): AsyncGenerator<Buffer> {
  yield Buffer.from("begun");
  await pause(random.between(20, 320));
  yield Buffer.from(", and ended");
}

function serve({ upstream }: GateRig, isOver: () => boolean): void {
  const every = (ms: number, answer: import("node:http").ServerResponse, work: () => void) => {
    const timer = setInterval(work, ms);
    answer.on("close", () => clearInterval(timer));
  };
  const ok = '{"ok":true}';
  const declared = { "content-type": "application/json", "content-length": ok.length };
  upstream.on("/sse", (_request, answer) => {
    answer.writeHead(200, { "content-type": "text/event-stream" });
    every(200, answer, () => {
      answer.write("data: on and on\n\n");
      if (isOver()) answer.end();
    });
  });
  // Declared short, so the gate holds it until it is whole.
  upstream.on("/dribble", (_request, answer) => {
    answer.writeHead(200, { "content-type": "text/plain", "content-length": 5_000 });
    let left = 5_000;
    every(200, answer, () => {
      const bytes = isOver() ? left : Math.min(1, left - 1);
      left -= bytes;
      answer.write("d".repeat(bytes));
      if (left === 0) answer.end();
    });
  });
  upstream.on("/trickle", (_request, answer) => {
    answer.writeHead(200, { "content-type": "application/octet-stream" });
    every(200, answer, () => {
      answer.write("trickle");
      if (isOver()) answer.end();
    });
  });
  upstream.on("/hang", (_request, answer) => {
    every(200, answer, () => {
      if (isOver() && !answer.headersSent) answer.writeHead(200, declared).end(ok);
    });
  });
}

/** What of an instance stands in its transcript, by the target of each call. */
interface OnRecord {
  readonly calls: ReadonlyMap<string, Line>;
  readonly answers: ReadonlyMap<number, Line>;
  readonly refused: ReadonlySet<string>;
}

function onRecord(copy: Copy, who: Instance): OnRecord {
  const lines = copy.linesOf(who);
  return {
    calls: new Map(lines.filter(({ type }) => type === "call").map((line) => [line["target"] as string, line])),
    answers: new Map(lines.filter(({ type }) => type === "answer").map((line) => [line["call"] as number, line])),
    refused: new Set(lines.filter(({ type }) => type === "refused").map((line) => line["target"] as string)),
  };
}

/** Everything in which upstream, agents, transcripts and receipt contradict each other. */
export function contradictions(
  rig: GateRig,
  copy: Copy,
  { asked }: Flood,
  receipt: SignedReceipt,
  { inReach, answeredAtMs }: { readonly inReach: ReadonlySet<string>; readonly answeredAtMs: number },
): string[] {
  const problems: string[] = [];
  const records = new Map<string, OnRecord>();
  for (const who of new Set(asked.map(({ who }) => who))) records.set(who.id, onRecord(copy, who));
  const seen = new Map<string, Seen[]>();
  for (const one of rig.upstream.requests()) {
    const target = `/hostile${one.target}`;
    seen.set(target, [...(seen.get(target) ?? []), one]);
  }
  const silentAtMs = Math.min(answeredAtMs, receipt.lastAcknowledgedAtMs ?? answeredAtMs) + SLACK_MS;
  let cut = 0;
  for (const one of asked) {
    const { calls, answers, refused } = records.get(one.who.id)!;
    const call = calls.get(one.target);
    const answer = call === undefined ? undefined : answers.get(call.seq);
    const reached = seen.get(one.target) ?? [];
    const isIn = inReach.has(one.who.id);
    const fault = (problem: string) =>
      problems.push(`${one.target}${isIn ? "" : " (not in reach)"}: ${problem} ${JSON.stringify(answer ?? null)}`);
    const { heard } = one;
    const isWhole = heard?.status === 200 && heard.isWhole;

    if (reached.length > 1) fault("reached the upstream twice");
    if (reached.length > 0 && call === undefined) fault("reached the upstream, and is not on record");
    if (call !== undefined && answer === undefined) fault("has no answer on record");
    if (isWhole !== (answer?.["outcome"] === "complete"))
      fault(`the agent ${isWhole ? "has" : `has not (${heard?.status}, ${one.bytes} bytes)`} the whole of it`);
    if (call === undefined && heard?.status !== 401 && one.kind !== "upload")
      fault(`heard ${heard?.status} of nothing`);
    if (call === undefined && heard?.status === 401 && !refused.has(one.target)) fault("refused, and not on record");
    for (const { bytesIn } of reached)
      if (answer !== undefined && bytesIn > Number(answer["forwardedBytes"]))
        fault(`${bytesIn} bytes reached the upstream`);
    if (!isIn) {
      if (!isWhole) fault(`the agent was stopped: ${heard?.status}`);
      continue;
    }
    if (one.startedAtMs > answeredAtMs && call !== undefined) fault("admitted after the receipt");
    for (const { atMs, lastByteAtMs } of reached)
      if (Math.max(atMs, lastByteAtMs) > silentAtMs) fault(`reached the upstream ${atMs - silentAtMs} ms too late`);
    if (one.lastByteAtMs > silentAtMs) if (heard?.status === 200) fault("bytes passed after the receipt");
    if (answer === undefined || isWhole) continue;
    cut++;
    const { outcome, cause, switch: id, passedBytes, upstreamOutcome } = answer;
    if (outcome !== "cut" || cause !== "switched" || id !== receipt.switch.id || upstreamOutcome !== "unknown")
      fault("is not recorded as cut by this switch");
    if (heard !== null && heard.status !== 200 && heard.status !== 401) fault(`the agent heard ${heard.status}`);
    if (heard?.status === 200 && Number(passedBytes) < one.bytes) fault(`the agent has ${one.bytes} bytes`);
    // A short answer may have been on its way in full when its call was cut; what goes on and on can only be broken off.
    const isShort = one.kind === "plain" || one.kind === "late";
    if (!isShort && reached.some(({ isBrokenOff }) => !isBrokenOff)) fault("the upstream's connection was not closed");
  }
  if (cut !== receipt.cut) problems.push(`${cut} were cut, and the receipt says ${receipt.cut}`);
  if (receipt.unconfirmed !== 0 || receipt.missing !== 0)
    problems.push(`not all confirmed: ${receipt.unconfirmed} ${receipt.missing}`);
  return problems;
}

export const SHORT_KINDS: readonly Kind[] = SHORT;
