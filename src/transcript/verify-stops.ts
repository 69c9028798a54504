import type { JsonObject } from "../grant/compact.ts";
import type { ReadRecord } from "./verify-segment.ts";
import type { CallSaid, EndedSaid, SwitchedSaid } from "./verify-shapes.ts";

/** What each reach names. */
const REACHES: Readonly<Record<string, readonly string[]>> = {
  instance: ["instance"],
  task: ["task"],
  human: ["human"],
  agent: ["agent"],
  "agent-version": ["agent", "agentVersion"],
  upstream: ["upstream"],
  mandate: ["mandate"],
  everything: [],
  "agent-upstream": ["agent", "upstream"],
  "human-upstream": ["human", "upstream"],
};

/** So far the clock may go back while the last calls are cut, and before the end is written. */
const CLOCK_BACK_MS = 60_000;

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
  /** Ids of those that hold, by the upstream that each closes; null: all. Each deed asks for two of these, however many there are. */
  readonly #holding = new Map<string | null, Set<string>>();
  /** Groups that the human still had; null: all. */
  #groups: ReadonlySet<string> | null = null;

  begin(deadlineMs: number): void {
    this.#deadlineMs = deadlineMs;
  }

  read({ envelope, place }: ReadRecord, said: SwitchedSaid): string | null {
    const { act } = said;
    if (act === "revoke") {
      this.#stopped ??= { cause: "revoked", place };
      return null;
    }
    const { switch: id, switchTarget: target } = said;
    const isKnown = this.#closed.has(id);
    if (act === "resume") {
      const known = this.#closed.get(id);
      const isPause = known?.act === "pause" && this.#holding.get(known.upstream)?.delete(id) === true;
      return isPause ? null : `resumes the pause ${id}, which does not hold`;
    }
    this.#close(said, id, place);
    return isKnown ? `closes the switch ${id} a second time` : findOfReach(envelope, said.reach, target);
  }

  #close(said: Exclude<SwitchedSaid, { act: "revoke" }>, id: string, place: string): void {
    const { act } = said;
    const upstream = said.switchTarget["upstream"] ?? null;
    this.#closed.set(id, { act, upstream, place });
    if (act !== "narrow") {
      const held = this.#holding.get(upstream) ?? new Set<string>();
      this.#holding.set(upstream, held.add(id));
      if (act === "kill" && upstream === null) this.#stopped ??= { cause: "switched", place };
      return;
    }
    const before = this.#groups;
    this.#groups = new Set(before === null ? said.groups : said.groups.filter((group) => before.has(group)));
  }

  /** Of what only who lives may do. @param upstream of a call; null: it is none */
  readDeed({ at }: ReadRecord, upstream: string | null): string | null {
    if (this.#stopped !== null)
      return `stands after the ${this.#stopped.cause === "revoked" ? "revocation" : "kill"} of ${this.#stopped.place}`;
    for (const reach of [null, upstream]) {
      const [id] = this.#holding.get(reach) ?? [];
      const held = id === undefined ? undefined : this.#closed.get(id);
      if (held !== undefined) return `stands after the ${held.act} of ${held.place}`;
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
    const isEarly = cause === "deadline" && at + CLOCK_BACK_MS < this.#deadlineMs;
    return isEarly ? "ended by its deadline, and before it" : null;
  }
}

/** Whether a switch means who it stands with. Humans may be meant by an address, whose digest no record has. */
function findOfReach(envelope: JsonObject, reach: string, target: Readonly<Record<string, string>>): string | null {
  const members = Object.hasOwn(REACHES, reach) ? REACHES[reach]! : null;
  if (members === null || members.join() !== Object.keys(target).sort().join())
    return `a switch whose target is not of its reach, ${reach}`;
  const chain = (Array.isArray(envelope["chain"]) ? envelope["chain"] : []) as readonly (JsonObject | null)[];
  const isMeant: Readonly<Record<string, (value: string) => boolean>> = {
    instance: (value) => chain.some((actor) => actor?.["instance"] === value),
    agent: (value) => chain.some((actor) => actor?.["agent"] === value),
    agentVersion: (value) => chain.some((actor) => actor?.["agentVersion"] === value),
    task: (value) => envelope["task"] === value,
    mandate: (value) => envelope["mandate"] === value,
  };
  const other = members.find((member) => isMeant[member]?.(target[member]!) === false);
  return other === undefined ? null : `a switch of another ${other}`;
}
