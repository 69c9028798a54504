import { type Approval, type ApprovalState, isOpen } from "../src/approval/contract.ts";
import type { Demand } from "../src/approval/policy.ts";
import type { Call } from "../src/scope/call.ts";
import type { Kept } from "./kept.ts";

/** A request for approval as its instance keeps it. */
export interface KeptApproval {
  readonly approval: Approval;
  /** Of the one call that it is about. */
  readonly digest: string;
  readonly call: Call;
  readonly demand: Demand;
  /** With which it came. */
  readonly grant: string;
  /** What the desk has heard of it. */
  readonly told: ApprovalState | null;
}

/** So many at most are kept: those of which the desk has not heard the end are among them. */
const MAX_KEPT = 50;
/** So many at most are open: a person can be asked no more by one instance. */
export const MAX_OPEN = 10;

/** The requests of one instance: those that are open, and those whose end the desk has not heard, or that still say no. */
export class ApprovalBook {
  readonly #kept: Kept;
  readonly #all: Map<string, KeptApproval>;

  constructor(kept: Kept) {
    this.#kept = kept;
    this.#all = kept.take<KeptApproval>("approval");
  }

  get isEmpty(): boolean {
    return this.#all.size === 0;
  }
  get all(): readonly KeptApproval[] {
    return [...this.#all.values()];
  }
  get open(): readonly KeptApproval[] {
    return this.all.filter(({ approval }) => isOpen(approval.state));
  }
  get untold(): readonly KeptApproval[] {
    return this.all.filter(({ approval, told }) => approval.state !== told);
  }
  get isFull(): boolean {
    return this.open.length >= MAX_OPEN || this.#all.size >= MAX_KEPT;
  }

  get(id: string): KeptApproval | undefined {
    return this.#all.get(id);
  }

  /** Of exactly this call: the one that is open, else the newest. */
  find(digest: string): KeptApproval | undefined {
    const found = this.all
      .filter((one) => one.digest === digest)
      .toSorted((a, b) => a.approval.askedAtMs - b.approval.askedAtMs);
    return found.find(({ approval }) => isOpen(approval.state)) ?? found.at(-1);
  }

  put(kept: KeptApproval): void {
    this.#kept.put("approval", kept.approval.id, kept);
    this.#all.set(kept.approval.id, kept);
  }

  /** What the desk has heard of, and what refuses nothing any more. A no stands for as long as it could have been decided. */
  forget(nowMs: number): void {
    for (const { approval, told, demand } of this.all) {
      const { id, state, endedAtMs } = approval;
      if (isOpen(state) || told !== state) continue;
      const standsMs = state === "denied" || state === "expired" ? demand.expireMs : 0;
      if (nowMs < (endedAtMs ?? 0) + standsMs && this.#all.size < MAX_KEPT) continue;
      this.#kept.delete("approval", id);
      this.#all.delete(id);
    }
  }
}
