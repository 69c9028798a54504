import type { Deployment } from "../src/deployment.ts";
import { approvalDeskOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import type { ApprovalBook } from "./approval-book.ts";

const DESK_ANSWER_MS = 5_000;
/** What the desk has not heard is told again after this. */
export const TELL_AGAIN_MS = 2_000;

export interface HandoverOptions {
  readonly ctx: DurableObjectState;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  readonly wakeBy: (atMs: number) => void;
}

/** Tells the desk of what is asked, and of what became of it, until it has heard. Told twice is once: it knows each request by its id. */
export class ApprovalHandover {
  readonly #options: HandoverOptions;
  readonly #book: ApprovalBook;
  #telling: Promise<void> | null = null;

  constructor(options: HandoverOptions, book: ApprovalBook) {
    this.#options = options;
    this.#book = book;
  }

  /** Dying before the desk has heard of it: the alarm tells it. */
  soon(wakeAtMs: number): void {
    this.#options.wakeBy(Math.min(wakeAtMs, Date.now() + TELL_AGAIN_MS));
    this.now();
  }

  now(): void {
    if (this.#book.untold.length === 0) return;
    this.#telling ??= this.#tell().finally(() => {
      this.#telling = null;
    });
    this.#options.ctx.waitUntil(this.#telling);
  }

  async #tell(): Promise<void> {
    try {
      for (let [next] = this.#book.untold; next !== undefined; [next] = this.#book.untold) {
        const { approval } = next;
        const desk = approvalDeskOf(this.#options.deployment());
        if ((await within(DESK_ANSWER_MS, desk.report(approval))) !== true) return;
        // Dying here it is told again. It may have gone on meanwhile: then the next round tells that.
        const now = this.#book.get(approval.id);
        if (now !== undefined) this.#book.put({ ...now, told: approval.state });
        this.#book.forget(Date.now());
      }
    } catch {
      // Out of reach. The alarm asks again.
    }
  }
}
