import type { Json } from "../scope/call.ts";
import type { Schedule } from "./schedule.ts";

/** What doors and `MandateBook` say to each other. Plain data over RPC; methods answer, never throw. */

/** What a human approves in advance. */
export interface MandateTerms {
  readonly agent: string;
  /** The client that may exchange it, and no other. */
  readonly platform: string;
  /** RFC 9396, as approved. */
  readonly scope: readonly Json[];
  readonly purpose: string;
  /** Null: at any time. */
  readonly schedule: Schedule | null;
  readonly notBeforeMs: number;
  readonly expiresAtMs: number;
  /** The longest that one task under it may last. */
  readonly taskSeconds: number;
  /** Lower than the agent's own; null: those. */
  readonly limits: { readonly calls: number | null; readonly bytes: number | null };
  /** Instances, ever and on one day; null: as many as fit. */
  readonly maxUses: number | null;
  readonly perDay: number | null;
}

export interface Mandate extends MandateTerms {
  readonly id: string;
  readonly human: string;
  readonly emailDigest: string | null;
  /** Those that the human had when approving, and when the provider said so. */
  readonly groups: readonly string[];
  readonly groupsAtMs: number;
  /** The provider said that it has not verified the address: it entitles to nothing. */
  readonly emailUnverified?: true;
  readonly approvedAtMs: number;
}

export interface Revocation {
  readonly atMs: number;
  readonly by: string;
  readonly reason: string;
  /** The switch that ends what works under it; null: nothing could. */
  readonly switch: string | null;
}

export interface MandateState {
  readonly mandate: Mandate;
  readonly uses: number;
  /** Null while it stands. */
  readonly revoked: Revocation | null;
}

/** Why it can't be used. */
export type MandateRefusal =
  | "unknown"
  | "revoked"
  | "not yet"
  | "expired"
  | "outside of its schedule"
  | "its human was stopped since"
  | "its uses are spent"
  | "the uses of this day are spent"
  | "unavailable";

export type UseAnswer = { readonly used: true } | { readonly used: false; readonly reason: MandateRefusal };

export type ApproveAnswer =
  | { readonly approved: true; readonly state: MandateState }
  | { readonly approved: false; readonly reason: ApproveRefusal };
export type ApproveRefusal = "too-many" | "its human was stopped since" | "unavailable";

export interface RevokeRequest {
  readonly by: string;
  /** Of an admin. That of the human who delegates stands in no record. */
  readonly email: string | null;
  readonly reason: string;
}

/** One for each human, named by its id. */
export interface MandateBookCalls {
  approve(mandate: Mandate): Promise<ApproveAnswer>;
  read(id: string): Promise<MandateState | null>;
  /** Newest first. */
  list(): Promise<readonly MandateState[]>;
  /** Counts one use, if all that only the book knows allows it. Exact: of two that race for the last one, one gets it. */
  use(id: string): Promise<UseAnswer>;
  /** Null: there is none. Repeated it is what it was. */
  revoke(id: string, request: RevokeRequest): Promise<MandateState | null>;
  /** An assertion about this human that may be used once. False: it was. */
  spendAssertion(jti: string, untilMs: number): Promise<boolean>;
}

export interface IndexedMandate {
  readonly id: string;
  readonly human: string;
}

/** One object: whose each mandate is. */
export interface MandateIndexCalls {
  /** @param untilMs from then on nobody asks for it any more, and it may be forgotten */
  note(entry: IndexedMandate, untilMs: number): Promise<void>;
  find(id: string): Promise<string | null>;
  /** Newest first; those before this one. Null: that one is not known, or not any more. */
  list(before: string | null, limit: number): Promise<readonly IndexedMandate[] | null>;
}
