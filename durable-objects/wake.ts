/** The one alarm of an object: the earliest of what is wanted. Arming costs a row, so it is done only where it moves forward. */
export class Wake {
  readonly #storage: DurableObjectStorage;
  #atMs: number | null = null;

  constructor(ctx: DurableObjectState) {
    this.#storage = ctx.storage;
    void ctx.blockConcurrencyWhile(async () => {
      this.#atMs = await ctx.storage.getAlarm();
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
