import { createHash } from "node:crypto";
import type { VolumeName } from "./verify-layout.ts";
import type { Run } from "./verify-run.ts";
import type { StatedBody } from "./verify-stated-bodies.ts";

/** One body as its runs and raw objects come. Hashed as they come; nothing of it is kept. */
export class GatheredBody {
  readonly stated: StatedBody;
  /** Of its first line. */
  readonly firstPlace: string;
  #hash: ReturnType<typeof createHash> | null = createHash("sha256");
  #digest: string | null = null;
  bytes = 0;
  runs = 0;
  /** Keys of those that were read. */
  readonly rawKeys: string[] = [];
  /** Its raw objects follow the line that stands for them, and nothing follows them. */
  #isRaw = false;
  /** The object that its last run stood in. */
  #lastKey: string | null = null;
  /** Named by a finding. */
  blamed = false;
  /** Some of it is lawfully gone, so what is left proves nothing. */
  isPartlyGone = false;
  /** Raw bytes beyond what the record of a reset object states. */
  hasSurplus = false;

  constructor(stated: StatedBody, firstPlace: string) {
    this.stated = stated;
    this.firstPlace = firstPlace;
  }

  /** What is wrong with a run here, or undefined. */
  problemOf(run: Run, segment: number): string | undefined {
    const { stated } = this;
    if (this.#isRaw) return "a run behind a body's raw objects";
    if (run.index !== this.runs) return `run ${run.index} of a body where its run ${this.runs} belongs`;
    if ((run.salt !== null) !== (run.index === 0)) return "a salt belongs to run 0, and to no other";
    if (segment < stated.fromSegment || segment > stated.untilSegment)
      return "a run among the bodies of a segment outside of its call's time";
    if (stated.bytes !== null && this.bytes + (run.bytes?.length ?? 0) > stated.bytes)
      return `more than the ${stated.bytes} bytes of ${stated.place}`;
    return undefined;
  }

  /** Runs before this one may have stood in objects that are gone as a whole. */
  mayFollowAGap(run: Run, { key, firstSeq, volume }: VolumeName): boolean {
    const isFirstObject = firstSeq === this.stated.fromSegment && volume === 0;
    return run.index > this.runs && key !== this.#lastKey && !isFirstObject;
  }
  skipTo(index: number): void {
    this.isPartlyGone = true;
    this.runs = index;
  }

  addRun(run: Run, key: string): void {
    this.runs++;
    this.#lastKey = key;
    this.#isRaw = run.bytes === null;
    if (run.salt !== null) this.#hash?.update(run.salt);
    this.addBytes(run.bytes ?? NOTHING);
  }

  addBytes(bytes: Uint8Array): void {
    // Nothing but empty runs comes after the last byte.
    if (this.#hash === null || this.stated.bytes === null) return;
    this.#hash.update(bytes);
    this.bytes += bytes.length;
    if (this.bytes < this.stated.bytes) return;
    // Kept as a digest, not as a hash at work: there can be as many bodies as calls.
    this.#digest = this.#hash.digest("hex");
    this.#hash = null;
  }

  get isWhole(): boolean {
    return this.bytes === this.stated.bytes;
  }

  /** Of a whole body. */
  get problem(): string | undefined {
    if (this.#digest === this.stated.digest) return undefined;
    const runs = this.#isRaw ? this.runs - 1 : this.runs;
    const holders = [
      ...(runs > 0 ? [`${runs} runs`] : []),
      ...(this.rawKeys.length > 0 ? [`${this.rawKeys.length} raw objects`] : []),
    ];
    const where = runs + this.rawKeys.length === 1 ? "" : ` in one of its ${holders.join(" or ")}`;
    return `altered${where}: not the digest of ${this.stated.place}`;
  }
  get problemPlace(): string {
    return this.#isInOneRawObject ? this.rawKeys[0]! : this.firstPlace;
  }
  get #isInOneRawObject(): boolean {
    return this.#isRaw && this.runs === 1 && this.rawKeys.length === 1;
  }
}

const NOTHING = new Uint8Array(0);
