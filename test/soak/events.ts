// What happens to the gate while agents call: crashes, restarts, resets, alarms that run twice, a bucket that is gone.

import type { Random } from "../random.ts";
import type { GateRig } from "../system/gate-rig.ts";
import { type BucketFaults, type FaultCounts, NO_FAULTS } from "./bucket-faults.ts";
import type { Load } from "./load.ts";

export interface EventCounts {
  crashes: number;
  restarts: number;
  aborts: number;
  rings: number;
  outages: number;
  replays: number;
  replaysAccepted: number;
  r2Faults: number;
  /** Objects of instances that were started, whatever had put the one before away. */
  objectStarts: number;
}

export interface EventOptions {
  readonly endsAtMs: number;
  /** Between two events, at most. */
  readonly everyMs: number;
  readonly faults: BucketFaults;
  readonly bounds: Parameters<GateRig["restart"]>[0];
  /** Runs when workerd is dead and before it is started again. */
  readonly afterKill: (pids: readonly number[]) => Promise<void>;
}

const WEIGHTS = { crash: 30, restart: 8, abort: 25, ring: 17, outage: 10 } as const;
/** So that no run is without them, however short. */
const FIRST: readonly (keyof typeof WEIGHTS)[] = ["crash", "abort", "outage", "ring"];
/** How many proofs are tried again after each crash or reset. */
const REPLAYS = 4;
/** Beyond it a proof is refused for its age alone, and shows nothing. */
const PROOF_AGE_MS = 90_000;

export class Events {
  readonly counts: EventCounts = {
    crashes: 0,
    restarts: 0,
    aborts: 0,
    rings: 0,
    outages: 0,
    replays: 0,
    replaysAccepted: 0,
    r2Faults: 0,
    objectStarts: 0,
  };
  readonly #rig: GateRig;
  readonly #load: Load;
  readonly #random: Random;
  readonly #options: EventOptions;
  /** Of the present life of workerd; those before are in `counts`. */
  #faultsNow = 0;
  #startsNow = 0;

  constructor(rig: GateRig, load: Load, random: Random, options: EventOptions) {
    this.#rig = rig;
    this.#load = load;
    this.#random = random;
    this.#options = options;
  }

  async run(): Promise<void> {
    for (let n = 0; ; n++) {
      await pause(this.#random.between(200, this.#options.everyMs));
      if (Date.now() >= this.#options.endsAtMs) break;
      await this.#happen(FIRST[n] ?? this.#random.pick(WEIGHTS));
    }
    await this.#askSoak("faults", undefined, NO_FAULTS);
    this.#keepFaults();
  }

  async #happen(event: keyof typeof WEIGHTS): Promise<void> {
    const living = this.#load.living();
    const agent = living[this.#random.between(0, Math.max(0, living.length - 1))];
    switch (event) {
      case "crash":
      case "restart": {
        await this.#askSoak("counts");
        this.#keepFaults();
        if (event === "crash") await this.#options.afterKill(this.#rig.crash());
        this.counts[event === "crash" ? "crashes" : "restarts"]++;
        await this.#rig.restart(this.#options.bounds);
        return this.#replay();
      }
      case "abort":
        if (agent === undefined) return;
        this.counts.aborts++;
        await this.#askSoak("abort", agent.id);
        return this.#replay();
      case "ring":
        if (agent === undefined) return;
        this.counts.rings++;
        await this.#askSoak("ring", agent.id);
        return;
      case "outage":
        this.counts.outages++;
        await this.#askSoak("faults", undefined, { ...NO_FAULTS, isDown: true });
        await pause(this.#random.between(500, this.#options.everyMs));
        // Half of them end with the life of workerd.
        if (this.#random.chance(0.5)) return this.#happen("crash");
        await this.#askSoak("faults", undefined, this.#options.faults);
    }
  }

  /** Proofs that had got through before must not get through again. */
  async #replay(): Promise<void> {
    const nowMs = Date.now();
    const alive = new Set(this.#load.living().map(({ id }) => id));
    const used = this.#load.attempts
      .slice(-300)
      .filter(
        ({ instance, sentAtMs, isUpstreams }) => isUpstreams && alive.has(instance) && sentAtMs > nowMs - PROOF_AGE_MS,
      );
    for (let i = 0; i < Math.min(REPLAYS, used.length); i++) {
      const attempt = used[this.#random.between(0, used.length - 1)]!;
      this.counts.replays++;
      if (!(await this.#load.replay(attempt))) this.counts.replaysAccepted++;
    }
  }

  async #askSoak(act: string, instance?: string, faults?: BucketFaults): Promise<void> {
    const url = `${this.#rig.origin}/soak/${act}${instance === undefined ? "" : `?instance=${instance}`}`;
    const init = {
      method: "POST",
      signal: AbortSignal.timeout(45_000),
      ...(faults === undefined ? {} : { body: JSON.stringify(faults) }),
    };
    const answer = await fetch(url, init).catch(() => undefined);
    if (answer?.status !== 200) return;
    const { faults: counts, started } = (await answer.json()) as { faults: FaultCounts; started: number };
    this.#startsNow = started;
    this.#faultsNow = Object.values(counts).reduce((sum, count) => sum + count, 0);
  }

  #keepFaults(): void {
    this.counts.r2Faults += this.#faultsNow;
    this.counts.objectStarts += this.#startsNow;
    this.#faultsNow = 0;
    this.#startsNow = 0;
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
