/**
 * The one alarm of an object: the earliest of what is wanted. Arming costs a row, so it is done only where it moves
 * forward. An object that starts with work and without an alarm for it arms one: the platform's retries of an alarm are
 * finite, what they were for may have been mended since, and what died with its last life is to be put on record soon.
 */
export class Wake {
  readonly #storage: DurableObjectStorage;
  #atMs: number | null = null;

  /** @param nextMs when the object wants to be woken; null: never. */
  constructor(ctx: DurableObjectState, nextMs: () => number | null) {
    this.#storage = ctx.storage;
    void ctx.blockConcurrencyWhile(async () => {
      this.#atMs ??= await ctx.storage.getAlarm();
      const wanted = nextMs();
      if (wanted !== null) this.by(wanted);
    });
  }

  by(atMs: number): void {
    if (this.#atMs !== null && this.#atMs <= atMs) return;
    this.#atMs = atMs;
    void this.#storage.setAlarm(atMs);
  }

  /** The first line of every alarm handler. */
  rang(): void {
    this.#atMs = null;
  }
}
