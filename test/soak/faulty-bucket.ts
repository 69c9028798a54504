// A bucket that fails as R2 may, between the objects and the real one. Every put is told to the witness before it is tried.

import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { Random } from "../random.ts";
import type { BucketFaults, FaultCounts, PutReport } from "./bucket-faults.ts";

export class FaultyBucket {
  faults: BucketFaults;
  readonly counts: FaultCounts = {};
  readonly #witness: string;
  readonly #random: Random;

  constructor(faults: BucketFaults, witness: string, seed: number) {
    this.faults = faults;
    this.#witness = witness;
    this.#random = new Random(seed);
  }

  /** What is not named here goes to the real bucket as it is. */
  around(real: R2Bucket): R2Bucket {
    const put = async (key: string, value: unknown, options?: R2PutOptions): Promise<unknown> => {
      await this.#report(key, value, options);
      const { failBefore, failAfter, hang, slow, slowMs } = this.faults;
      if (this.#meets("failBefore", failBefore)) throw new Error("R2 is down");
      if (this.#meets("hang", hang)) return new Promise(() => {});
      if (this.#meets("slow", slow)) await pause(this.#random.between(1, slowMs));
      const stored = await real.put(key, value as ArrayBuffer, options as R2PutOptions);
      if (this.#meets("failAfter", failAfter)) throw new Error("the answer was lost");
      return stored;
    };
    const get = async (key: string, options?: R2GetOptions): Promise<unknown> => {
      if (this.#meets("getFails", this.faults.getFails)) throw new Error("R2 is down");
      return real.get(key, options as R2GetOptions);
    };
    const list = async (options?: R2ListOptions): Promise<unknown> => {
      if (this.#meets("listFails", this.faults.listFails)) throw new Error("R2 is down");
      return real.list(options);
    };
    const ours: Readonly<Record<string, unknown>> = { put, get, list };
    return new Proxy(real, {
      get: (target, name) => {
        if (typeof name === "string" && Object.hasOwn(ours, name)) return ours[name];
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  }

  #meets(fault: string, share: number): boolean {
    const isMet = this.faults.isDown || this.#random.chance(share);
    const name = this.faults.isDown ? "down" : fault;
    // An outage answers at once: it is met at the first question, so it counts once.
    if (isMet) this.counts[name] = (this.counts[name] ?? 0) + 1;
    return isMet;
  }

  async #report(key: string, value: unknown, options?: R2PutOptions): Promise<void> {
    const only = options?.onlyIf as R2Conditional | undefined;
    const report: PutReport = { key, digest: digestOf(key, value), isConditional: only?.etagDoesNotMatch === "*" };
    await fetch(`${this.#witness}/put`, { method: "POST", body: JSON.stringify(report) });
  }
}

function digestOf(key: string, value: unknown): string | null {
  const bytes = ArrayBuffer.isView(value)
    ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    : value instanceof ArrayBuffer
      ? new Uint8Array(value)
      : null;
  if (bytes === null) return null;
  return createHash("sha256")
    .update(key.endsWith(".gz") ? gunzipSync(bytes) : bytes)
    .digest("hex");
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
