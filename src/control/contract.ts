import type { Fields } from "../transcript/envelope.ts";
import type { Pushed, Reached } from "./acknowledgement.ts";
import type { Narrowing } from "./narrowing.ts";
import type { Act, Attributes, Reach, Switch, SwitchCause, Target } from "./switch.ts";

/** What doors and objects say to `Roster`, `Switchboard` and `Journal`. Plain data over RPC; methods answer, never throw. */

// --- Roster -------------------------------------------------------------------------------------------------------

export interface EnlistAnswer {
  /** False: a switch in `closed` keeps the newcomer out, or one that narrows was not reckoned with. */
  readonly enlisted: boolean;
  /** Closed switches in whose reach the newcomer is. */
  readonly closed: readonly Switch[];
  readonly validMs: number;
}

export interface ConfirmAnswer {
  /** False: unknown to the roster, or in reach of a closed switch that closes all that it does. */
  readonly confirmed: boolean;
  /** All that are closed for it now, those of one upstream too; a pause that is not here any more was resumed. */
  readonly closed: readonly Switch[];
  /** From when the question was sent. */
  readonly validMs: number;
}

export interface Member extends Attributes {
  readonly enlistedAtMs: number;
  readonly confirmedUntilMs: number;
  readonly state: "live" | "paused" | "killed";
  /** Switches that have taken groups from it. */
  readonly narrowedBy: readonly string[];
}

/** How far one roster shard is with a switch. */
export interface ShardProgress {
  readonly pushed: readonly Pushed[];
  /** Pushes of this round are still on their way. */
  readonly isRunning: boolean;
  /** Members in reach that held no confirmation: they can do nothing, and are told when they ask. */
  readonly idle: number;
}

/** A switch as a roster shard gets it when it comes up: `openedAtMs` where a kill was lifted, which stays final for who was there before. */
export interface BookedSwitch {
  readonly switch: Switch;
  readonly isOpen: boolean;
  /** Null while it is closed; left out by a switchboard of an older release. */
  readonly openedAtMs?: number | null;
}

export interface RosterCalls {
  /**
   * Null: the shard has come up, and the switchboard can't tell it what is closed. It takes nobody.
   * @param reckoned ids of switches that narrow, and that the newcomer's scope has been held to: it is taken with no others.
   */
  enlist(attributes: Attributes, reckoned?: readonly string[]): Promise<EnlistAnswer | null>;
  /** @param isRunning whether calls of it run: then a switch is pushed to it before others. */
  confirm(instance: string, isRunning?: boolean): Promise<ConfirmAnswer>;
  /** The instance admits nothing any more. Answers with what had been closed for it. */
  leave(instance: string): Promise<readonly Switch[]>;
  /** Takes a closed switch, and pushes it; answers when all pushes have, or after `waitMs` with what is known. Asked again it goes on. */
  apply(sw: Switch, waitMs: number): Promise<ShardProgress>;
  /** Lets newcomers in again, and resumes who was paused. */
  open(sw: Switch, opening: Opening): Promise<void>;
  /** Ordered by instance, after this one. */
  list(after: string, limit: number): Promise<readonly Member[]>;
  /** The same of one human, without their states. */
  membersOf(human: string, after: string, limit: number): Promise<readonly { instance: string; task: string }[]>;
}

// --- Switchboard --------------------------------------------------------------------------------------------------

export interface FlipRequest {
  /** A UUID of the asker's making, so that it can look while the flip runs. */
  readonly id: string;
  readonly reach: Reach;
  readonly target: Target;
  readonly act: Act;
  readonly reason: string;
  readonly by: string;
  /** Of the admin, for the journal. */
  readonly email: string | null;
  readonly cause: SwitchCause | null;
  /** Null of one that narrows: how long older tokens are good is the switchboard's to know. */
  readonly untilMs: number | null;
  /** Of one that narrows: the groups that are left. */
  readonly groups?: readonly string[];
  /** Of one that narrows: when that was so. Without it, when the switchboard hears of it. */
  readonly eventAtMs?: number;
  /** The same key by the same one is the same flip, however often it is asked for. */
  readonly idempotencyKey: string | null;
}

export interface OpenRequest {
  readonly by: string;
  readonly email: string | null;
  readonly reason: string;
}

/**
 * `accepted`: it stands, and no roster shard has answered yet. `pending`: somebody in reach may still act. `done`: nobody
 * can any more; of a switch that was opened, nobody could. `resumed`: a pause that was opened before that, and is carried
 * on no more: some have perhaps never heard of it.
 */
export type FlipStatus = "accepted" | "pending" | "done" | "resumed";

/** A switch in the book, and how far it is. */
export interface FlipState {
  readonly switch: Switch;
  readonly status: FlipStatus;
  /** Roster shards that have not said yet whom they have in reach. */
  readonly unheardShards: number;
  readonly reached: readonly Reached[];
  readonly idle: number;
  /** Null while it is closed. */
  readonly opened: Opening | null;
  /** Who has asked to lift it, where that takes two. */
  readonly liftAskedBy: readonly string[];
}

/** What may be asked for often: figures of a switch, without the instances. */
export interface FlipProgress {
  readonly switch: string;
  readonly status: FlipStatus;
  readonly reached: number;
  readonly idle: number;
  readonly cut: number;
  readonly unconfirmed: number;
  readonly unreached: number;
}

export interface Opening {
  readonly atMs: number;
  /** `expiry`: its time was over. */
  readonly by: string;
  readonly reason: string;
}

export type FlipAnswer =
  | { readonly flipped: true; readonly isRepeated: boolean; readonly state: FlipState }
  /** The idempotency key was used for another flip. */
  | { readonly flipped: false };

export type LiftAnswer =
  | { readonly kind: "opened"; readonly state: FlipState }
  /** It takes a second operator, within an hour. */
  | { readonly kind: "second-operator"; readonly state: FlipState }
  | { readonly kind: "open-already"; readonly state: FlipState }
  /** One that narrows is over by itself: who signs in anew is not in its reach. */
  | { readonly kind: "not-lifted"; readonly state: FlipState }
  | { readonly kind: "unknown" };

export interface SwitchboardCalls {
  flip(request: FlipRequest): Promise<FlipAnswer>;
  lift(id: string, request: OpenRequest): Promise<LiftAnswer>;
  /** Opens every closed pause of exactly this reach and target. */
  resume(
    selector: { readonly reach: Reach; readonly target: Target },
    request: OpenRequest,
  ): Promise<readonly FlipState[]>;
  read(id: string): Promise<FlipState | null>;
  progress(id: string): Promise<FlipProgress | null>;
  /** Newest first; those before this one. `reached` is left out. */
  list(before: string | null, limit: number): Promise<readonly FlipState[]>;
  /** A roster shard that comes up: from then on it gets every switch. */
  join(shard: number): Promise<readonly BookedSwitch[]>;
  shards(): Promise<readonly number[]>;
  /** When a kill of this human last came, by any of these names of theirs; null: never. It counts for what was approved before, also when it was lifted. */
  humanKilledAt(names: readonly string[]): Promise<number | null>;
  /** All that this human ever lost, by any of these names of theirs: what was approved before may be older than any switch in the book. */
  narrowingsOf(names: readonly string[]): Promise<readonly Narrowing[]>;
}

// --- Journal ------------------------------------------------------------------------------------------------------

export interface JournalEntry {
  readonly type: "act" | "refused" | "read" | "stored";
  readonly fields: Fields;
  readonly deployment: string;
}

export interface JournalCalls {
  append(entry: JournalEntry): Promise<boolean>;
  read(fromSeq: number, maxLines: number): Promise<readonly string[]>;
}
