// Looks at the bucket again and again: an object that was seen once stays as it was.

import type { GateRig } from "../system/gate-rig.ts";

type Bucket = Awaited<ReturnType<GateRig["bucket"]>>;

export class BucketWatch {
  readonly changed: string[] = [];
  /** Version and etag by key. */
  readonly #seen = new Map<string, string>();
  readonly #rig: GateRig;
  #isOver = false;

  constructor(rig: GateRig) {
    this.#rig = rig;
  }

  get objects(): number {
    return this.#seen.size;
  }

  async run(): Promise<void> {
    while (!this.#isOver) {
      // Between two lives of workerd there is nothing to look at.
      await this.look().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 2_000));
    }
  }

  stop(): void {
    this.#isOver = true;
  }

  async look(): Promise<void> {
    const bucket: Bucket = await this.#rig.bucket();
    const now = new Map<string, string>();
    let cursor: string | undefined;
    do {
      const listed = await bucket.list(cursor === undefined ? {} : { cursor });
      for (const { key, etag, version } of listed.objects) now.set(key, `${version} ${etag}`);
      cursor = listed.truncated ? listed.cursor : undefined;
    } while (cursor !== undefined);
    for (const [key, before] of this.#seen) {
      const after = now.get(key);
      if (after !== before) this.changed.push(`${key}: ${after === undefined ? "gone" : "written again"}`);
    }
    for (const [key, version] of now) this.#seen.set(key, version);
  }
}
