import type { Cause } from "../instance/contract.ts";

/** Why the pump of a call must stop before the answer's end. */
export type StopReason =
  | { readonly kind: "cut"; readonly cause: Cause }
  /** The object that holds the lease was reset, or does not answer: nobody could cut this call any more. */
  | { readonly kind: "lease-lost" }
  | { readonly kind: "client-gone" }
  | { readonly kind: "upstream-broke-off" }
  | { readonly kind: "timeout"; readonly what: "first byte" | "idle" | "total" }
  | { readonly kind: "too-large"; readonly reason: string };

/** One switch for everything that can stop a call: the first reason counts, and the upstream's connection is closed. */
export class Stop {
  readonly #controller = new AbortController();
  readonly #stopped = Promise.withResolvers<void>();
  #reason: StopReason | null = null;

  get reason(): StopReason | null {
    return this.#reason;
  }
  /** For the fetch to the upstream. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  /** Resolves when stopped. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  stop(reason: StopReason): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.#stopped.resolve();
    this.#controller.abort();
  }

  /** Closes the upstream's connection after the end, when there is nothing more to say about the call. */
  release(): void {
    this.#controller.abort();
  }
}

/** Settles as `work` does, or with `undefined` after `ms`. */
export async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  let timer: number | null = null;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
