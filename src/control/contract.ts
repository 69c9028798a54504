import type { Fields } from "../transcript/envelope.ts";
import type { Attributes, FlipAnswer, FlipStatus, Reached, Switch } from "./switch.ts";

/** What doors and objects say to `Roster`, `Switchboard` and `Journal`. Plain data over RPC; methods answer, never throw. */

export interface EnlistAnswer {
  /** Closed switches in whose reach the newcomer is: any refuses it. */
  readonly closed: readonly Switch[];
  readonly validMs: number;
}

export interface ConfirmAnswer {
  /** False: unknown to the roster, or in reach of a closed switch. */
  readonly confirmed: boolean;
  readonly closed: readonly Switch[];
  /** From when the question was sent. */
  readonly validMs: number;
}

export interface Member extends Attributes {
  readonly enlistedAtMs: number;
  readonly confirmedUntilMs: number;
  readonly killed: boolean;
}

export interface FlipRequest {
  readonly reach: Switch["reach"];
  readonly target: string;
  readonly act: Switch["act"];
  readonly reason: string;
  readonly by: string;
}

export interface JournalEntry {
  readonly type: "act" | "refused" | "read";
  readonly fields: Fields;
  readonly deployment: string;
}

/** A flip that stands, and is not through yet: the switchboard carries it on by alarm. */
export interface FlipPending {
  readonly switch: Switch;
  readonly reached: null;
}

/** A flip in the book. `outcome` is null until the roster has answered. */
export type FlipListed = Switch & { readonly status: FlipStatus; readonly outcome: readonly Reached[] | null };

export interface RosterCalls {
  enlist(attributes: Attributes): Promise<EnlistAnswer>;
  confirm(instance: string): Promise<ConfirmAnswer>;
  leave(instance: string): Promise<void>;
  apply(sw: Switch): Promise<readonly Reached[]>;
  list(limit: number): Promise<readonly Member[]>;
}

export interface SwitchboardCalls {
  flip(request: FlipRequest): Promise<FlipAnswer | FlipPending>;
  list(): Promise<readonly FlipListed[]>;
}

export interface JournalCalls {
  append(entry: JournalEntry): Promise<boolean>;
  read(fromSeq: number, maxLines: number): Promise<readonly string[]>;
}
