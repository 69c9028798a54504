/** What doors and `Retention` say to each other. Plain data over RPC; methods answer, never throw. */

/** Who or what a hold keeps. */
export type HeldSubject =
  | { readonly kind: "human"; readonly id: string }
  | { readonly kind: "task"; readonly id: string }
  | { readonly kind: "everything" };

export interface Hold {
  readonly id: string;
  readonly subject: HeldSubject;
  readonly reason: string;
  readonly by: string;
  readonly atMs: number;
}

export interface Release {
  readonly atMs: number;
  /** Both who agreed, in the order in which they asked. */
  readonly by: readonly string[];
  readonly reason: string;
}

export interface HoldState extends Hold {
  /** Null: it stands. */
  readonly released: Release | null;
  /** Who has asked to release it within the hour. */
  readonly releaseAskedBy: readonly string[];
}

/** A person at the door. */
export interface Asker {
  readonly by: string;
  readonly email: string | null;
  readonly reason: string;
}

export interface HoldRequest extends Asker {
  readonly subject: HeldSubject;
}

export type ReleaseAnswer =
  | { readonly kind: "released"; readonly hold: HoldState }
  /** It takes a second person, within an hour. */
  | { readonly kind: "second-person"; readonly hold: HoldState }
  | { readonly kind: "released-already" }
  | { readonly kind: "unknown" };

export interface ErasureRequest extends Asker {
  readonly human: string;
  /** Null: of all tasks. */
  readonly task: string | null;
  /** The same key by the same one is the same erasure, however often it is asked for. */
  readonly idempotencyKey: string | null;
}

/**
 * `running`: it is carried on, by itself, whatever becomes of anybody. `stopped`: a hold was placed meanwhile; what was
 * deleted by then is gone, and the rest takes another erasure. `done`: nothing is left. `incomplete`: it is over, and
 * `left` says what is still there.
 */
export type ErasureStatus = "running" | "stopped" | "done" | "incomplete";

/** Something that the erasure did not take, and why. */
export interface Left {
  readonly what: string;
  readonly why: string;
}

export interface ErasureState {
  readonly id: string;
  readonly human: string;
  readonly task: string | null;
  readonly reason: string;
  readonly by: string;
  readonly atMs: number;
  /** Bodies of records up to then are meant, and none after it. */
  readonly beforeMs: number;
  readonly status: ErasureStatus;
  /** Key in the bucket of the signed certificate, which stands before anything is deleted. */
  readonly certificate: string;
  /** Deleted from the bucket, and how many bytes they were. */
  readonly objects: number;
  readonly bytes: number;
  /** Held bodies that are kept, too, and were written anew without those that are not. */
  readonly rewritten: number;
  /** Instances that were asked, and bodies that they still held themselves. */
  readonly instances: number;
  readonly blanked: number;
  /** How many things are left, and the first hundred of them. */
  readonly leftCount: number;
  readonly left: readonly Left[];
  /** The hold that stopped it. */
  readonly stoppedBy: string | null;
  readonly endedAtMs: number | null;
}

export type EraseAnswer =
  | { readonly kind: "accepted"; readonly isRepeated: boolean; readonly erasure: ErasureState }
  | { readonly kind: "held"; readonly hold: HoldState }
  /** The idempotency key was used for another erasure. */
  | { readonly kind: "key-used" };

export interface RetentionCalls {
  hold(request: HoldRequest): Promise<HoldState>;
  release(id: string, request: Asker): Promise<ReleaseAnswer>;
  /** Newest first; those before this one. */
  holds(before: string | null, limit: number): Promise<readonly HoldState[]>;
  erase(request: ErasureRequest): Promise<EraseAnswer>;
  erasure(id: string): Promise<ErasureState | null>;
}
