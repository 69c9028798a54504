import type { ReadRecord } from "./verify-segment.ts";
import type { CallSaid, EndedSaid, SwitchedSaid } from "./verify-shapes.ts";

/** Which member of a switch's target must be what of the records that it stands among. A human or an agent may be meant in other words. */
const TARGETS: Readonly<Record<string, string>> = { task: "task", mandate: "mandate" };

/** What stops an instance: switches, a revocation, its deadline. Nothing goes on behind them. */
export class StopReader {
  #deadlineMs = Number.POSITIVE_INFINITY;
  /** The first that ended it for good. */
  #stopped: { readonly cause: "revoked" | "switched"; readonly place: string } | null = null;
  /** Every switch that was closed here, by its id. */
  readonly #closed = new Map<
    string,
    { readonly act: string; readonly upstream: string | null; readonly place: string }
  >();
  /** Ids of those that hold. */
  readonly #holding = new Set<string>();
  /** Groups that the human still had; null: all. */
  #groups: ReadonlySet<string> | null = null;

  begin(deadlineMs: number): void {
    this.#deadlineMs = deadlineMs;
  }

  read({ envelope, place }: ReadRecord, said: SwitchedSaid): string | null {
    const { act, switch: id, switchTarget: target = {} } = said;
    if (act === "revoke") {
      this.#stopped ??= { cause: "revoked", place };
      return null;
    }
    if (id === undefined) return "a switch without an id";
    if (act === "resume") {
      if (!this.#holding.has(id) || this.#closed.get(id)?.act !== "pause")
        return `resumes the pause ${id}, which does not hold`;
      this.#holding.delete(id);
      return null;
    }
    if (this.#closed.has(id)) return `closes the switch ${id} a second time`;
    const upstream = target["upstream"] ?? null;
    this.#closed.set(id, { act, upstream, place });
    this.#holding.add(id);
    if (act === "kill" && upstream === null) this.#stopped ??= { cause: "switched", place };
    if (act === "narrow") {
      const { groups = [] } = said;
      const before = this.#groups;
      this.#groups = new Set(before === null ? groups : groups.filter((group) => before.has(group)));
    }
    const other = Object.entries(TARGETS).find(
      ([member, field]) => target[member] !== undefined && target[member] !== envelope[field],
    );
    if (other !== undefined) return `a switch of another ${other[0]}`;
    const chain = envelope["chain"];
    const instances = Array.isArray(chain) ? chain.map((one) => (one as { instance?: unknown } | null)?.instance) : [];
    if (target["instance"] !== undefined && !instances.includes(target["instance"]))
      return "a switch of another instance";
    return null;
  }

  /** Of what only who lives may do. @param upstream of a call; null: it is none */
  readDeed({ at }: ReadRecord, upstream: string | null): string | null {
    if (this.#stopped !== null)
      return `stands after the ${this.#stopped.cause === "revoked" ? "revocation" : "kill"} of ${this.#stopped.place}`;
    for (const id of this.#holding) {
      const { act, upstream: of, place } = this.#closed.get(id)!;
      if (act !== "narrow" && (of === null || of === upstream)) return `stands after the ${act} of ${place}`;
    }
    return at >= this.#deadlineMs ? "stands after the deadline" : null;
  }

  /** By a group that the human had lost. */
  readCeilings({ decision }: CallSaid): string | null {
    const groups = this.#groups;
    if (groups === null) return null;
    for (const { layer, at } of decision.ceilings) {
      const [, group] = /^entitlements\.groups\.(.*)\[\d+\]$/s.exec(at) ?? [];
      if (layer === "entitlement" && group !== undefined && !groups.has(group))
        return `was allowed by the group ${group}, which the human had lost`;
    }
    return null;
  }

  /** An answer names a switch: that was closed by then. */
  readCut(id: string): string | null {
    return this.#closed.has(id) ? null : `was cut by the switch ${id}, which no record before it closes`;
  }

  readEnded({ at }: ReadRecord, { cause }: EndedSaid): string | null {
    const due = this.#stopped?.cause ?? "deadline";
    if (cause !== due) return `its cause is ${cause}, and the records say ${due}`;
    return cause === "deadline" && at < this.#deadlineMs ? "ended by its deadline, and before it" : null;
  }
}
