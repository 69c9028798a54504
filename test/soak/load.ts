// The agents: each lives for a task, calls at random, renews, vanishes half-way, and keeps its own book of what it got.

import { createHash } from "node:crypto";
import type { Random } from "../random.ts";
import type { GateRig, Heard, Instance } from "../system/gate-rig.ts";
import { nowSeconds, type SigningKey } from "../system/harness.ts";
import { type AnswerKind, markOf, requestBody } from "./content.ts";

/** One call as its client saw it. */
export interface Attempt {
  readonly call: number;
  readonly instance: string;
  readonly method: string;
  readonly target: string;
  readonly kind: AnswerKind;
  /** Asked of the upstream. */
  readonly answerBytes: number;
  readonly requestBytes: number;
  readonly proof: string;
  readonly sentAtMs: number;
  /** 0: no answer began. */
  status: number;
  /** By the answer's own mark; else it is the gate's, or none came. */
  isUpstreams: boolean;
  isWhole: boolean;
  /** As the answer's head said; null: it did not. */
  declaredBytes: number | null;
  receivedBytes: number;
  receivedDigest: string;
  endedAtMs: number;
}

export interface Agent extends Instance {
  readonly key: SigningKey;
  access: string;
  refresh: string;
  readonly deadlineMs: number;
}

export interface LoadOptions {
  readonly agents: number;
  /** Calls of one agent at a time. */
  readonly callers: number;
  /** How long a task is at least and at most, in seconds. */
  readonly taskSeconds: readonly [number, number];
  readonly endsAtMs: number;
  /** Of a body. Above 1 MiB a body is recorded as it passes. */
  readonly largestBytes: number;
}

const SCOPE = JSON.stringify([
  { type: "http", upstream: "hostile", operations: ["GET /{+path}", "POST /{+path}", "PUT /{+path}"] },
]);
/** A client that heard nothing for so long gives up: beyond every bound of the gate's. */
const GIVE_UP_MS = 45_000;
/** The runtime puts an object away ten seconds after it was last asked, and its last flush was a moment after that. */
const NAP_MS = 13_000;
const KIND_WEIGHTS: Readonly<Record<AnswerKind, number>> = {
  json: 40,
  binary: 10,
  gzip: 8,
  sse: 10,
  chunked: 6,
  declared: 6,
  slow: 6,
  hang: 1,
  halfway: 4,
  early: 4,
  empty: 5,
};
const UPLOADS = { none: 60, small: 20, medium: 10, large: 5, unbounded: 5 } as const;

export class Load {
  readonly attempts: Attempt[] = [];
  /** Everyone that ever was provisioned. */
  readonly agents: Agent[] = [];
  renewals = 0;
  naps = 0;
  readonly #rig: GateRig;
  readonly #random: Random;
  readonly #options: LoadOptions;
  #nextCall = 1;

  constructor(rig: GateRig, random: Random, options: LoadOptions) {
    this.#rig = rig;
    this.#random = random;
    this.#options = options;
  }

  /** Until the time is over. */
  async run(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.agents }, () => this.#live(this.#random.fork())));
  }

  /** Agents whose task still runs. */
  living(): readonly Agent[] {
    return this.agents.filter(({ deadlineMs }) => deadlineMs > Date.now());
  }

  /** One agent after the other. */
  async #live(random: Random): Promise<void> {
    const { endsAtMs, taskSeconds, callers } = this.#options;
    while (Date.now() < endsAtMs) {
      // By then the runtime has put the object away, and the next call finds a new one.
      const napsAtMs = random.chance(0.5) ? Date.now() + random.between(1_000, 15_000) : Number.POSITIVE_INFINITY;
      const deadline = Math.min(nowSeconds() + random.between(...taskSeconds), Math.ceil(endsAtMs / 1000) + 1);
      const agent = await this.#provision(deadline);
      if (agent === undefined) await pause(200);
      else {
        this.agents.push(agent);
        await Promise.all(Array.from({ length: callers }, () => this.#callOnAndOn(agent, random.fork(), napsAtMs)));
      }
    }
  }

  async #provision(deadline: number): Promise<Agent | undefined> {
    try {
      const form = { deadline: String(deadline), authorization_details: SCOPE };
      const { key, access, refresh } = await this.#rig.h.provision({ form });
      return { key, access, refresh, id: key.thumbprint, deadlineMs: deadline * 1000 };
    } catch {
      // The gate is down, or went down. If it enrolled all the same, its transcript ends with the task.
      return undefined;
    }
  }

  async #callOnAndOn(agent: Agent, random: Random, napsAtMs: number): Promise<void> {
    const endMs = Math.min(agent.deadlineMs, this.#options.endsAtMs);
    let isRested = false;
    while (Date.now() < endMs) {
      if (!isRested && Date.now() > napsAtMs) {
        isRested = true;
        this.naps++;
        await pause(Math.min(NAP_MS, endMs - Date.now()));
        continue;
      }
      if (random.chance(0.02)) await this.#renew(agent);
      const attempt = await this.#callOnce(agent, random);
      await pause(attempt.status === 0 ? 150 : random.between(0, 60));
    }
  }

  async #renew(agent: Agent): Promise<void> {
    const answer = await this.#rig.h.renew(agent.key, agent.refresh).catch(() => undefined);
    if (answer?.status !== 200) return;
    agent.access = answer.json["access_token"] as string;
    agent.refresh = (answer.json["refresh_token"] as string | undefined) ?? agent.refresh;
    this.renewals++;
  }

  async #callOnce(agent: Agent, random: Random): Promise<Attempt> {
    const call = this.#nextCall++;
    const kind = random.pick(KIND_WEIGHTS);
    const upload = random.pick(UPLOADS);
    const { largestBytes } = this.#options;
    const answerBytes = sizeOf(kind, random, largestBytes);
    const requestBytes = {
      none: 0,
      small: random.between(1, 2_000),
      medium: random.between(2_001, 200_000),
      large: spread(random, 1_048_000, largestBytes),
      unbounded: spread(random, 1, largestBytes),
    }[upload];
    const pauseMs = kind === "slow" ? random.between(10, 900) : kind === "sse" ? random.between(0, 250) : 0;
    const target = `/hostile/${kind}?call=${markOf(call)}&bytes=${answerBytes}&pause=${pauseMs}`;
    const method = upload === "none" ? "GET" : random.pick({ POST: 1, PUT: 1 });
    const vanishesAfterMs = random.chance(0.08) ? random.between(5, 800) : GIVE_UP_MS;
    const breaksUploadAt = upload === "unbounded" && random.chance(0.3) ? random.next() : 1;
    const attempt: Attempt = {
      call,
      instance: agent.id,
      method,
      target,
      kind,
      answerBytes,
      requestBytes,
      proof: this.#rig.proofFor(agent, method, target),
      sentAtMs: Date.now(),
      status: 0,
      isUpstreams: false,
      isWhole: false,
      declaredBytes: null,
      receivedBytes: 0,
      receivedDigest: "",
      endedAtMs: 0,
    };
    this.attempts.push(attempt);
    const body = requestBytes === 0 ? undefined : requestBody(call, requestBytes);
    const sent = {
      method,
      proof: attempt.proof,
      signal: AbortSignal.timeout(vanishesAfterMs),
      ...(body === undefined ? {} : { body: upload === "unbounded" ? pieces(body, breaksUploadAt) : body }),
    };
    note(attempt, await this.#rig.call(agent, target, sent).catch(() => undefined));
    return attempt;
  }

  /** The same proof once more. True: it was refused. */
  async replay(attempt: Attempt): Promise<boolean> {
    const agent = this.agents.find(({ id }) => id === attempt.instance)!;
    const heard = await this.#rig
      .call(agent, attempt.target, {
        method: attempt.method,
        proof: attempt.proof,
        signal: AbortSignal.timeout(20_000),
      })
      .catch(() => undefined);
    // No answer is no acceptance; had it passed, the upstream would have it twice.
    return heard === undefined || heard.headers["x-soak"] === undefined;
  }
}

function note(attempt: Attempt, heard: Heard | undefined): void {
  attempt.endedAtMs = Date.now();
  if (heard === undefined) return;
  attempt.status = heard.status;
  attempt.isUpstreams = heard.headers["x-soak"] === String(attempt.call);
  attempt.isWhole = heard.isWhole;
  const declared = heard.headers["content-length"];
  attempt.declaredBytes = declared === undefined ? null : Number(declared);
  attempt.receivedBytes = heard.body.length;
  attempt.receivedDigest = createHash("sha256").update(heard.body).digest("hex");
}

/** As often in one order of magnitude as in the next. */
const spread = (random: Random, least: number, most: number): number =>
  Math.round(least * (most / least) ** random.next());

function sizeOf(kind: AnswerKind, random: Random, largest: number): number {
  if (kind === "chunked" || kind === "declared" || kind === "halfway") return spread(random, 70_000, largest);
  if (kind === "sse") return random.between(600, 60_000);
  return random.chance(0.8) ? random.between(1, 4_000) : random.between(4_000, 60_000);
}

/** Without a length; up to a share of it, where the client then breaks off. */
async function* pieces(body: Buffer, share: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < body.length; at += 65_536) {
    if (at >= body.length * share && share < 1) throw new Error("the client breaks off");
    yield body.subarray(at, at + 65_536);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
