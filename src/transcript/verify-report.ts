import type { BodyCounts } from "./verify-bodies.ts";
import type { ParentState } from "./verify-families.ts";
import type { Finding } from "./verify-findings.ts";
import type { ClockBack } from "./verify-records.ts";

export interface TranscriptReport {
  /** `human=…/task=…/instance=…` or `journal=…/day=…`. */
  readonly partition: string;
  readonly records: number;
  readonly segments: number;
  /** `ended` only by a sealed end. */
  readonly status: "open" | "ended";
  /** `seq` of calls that have no answer. */
  readonly openCalls: readonly number[];
  readonly erasedBodies: BodyCounts["erased"];
  readonly expiredBodies: BodyCounts["expired"];
  readonly absentBodies: BodyCounts["absent"];
  readonly undigestedBodies: BodyCounts["undigested"];
  /** Objects with bodies of the next segment, or of a call that runs, which is not here yet: bodies go first. */
  readonly bodiesAhead: number;
  /** `seq` of calls of which it can't be told whether their grant's scope allows them: it speaks of what is not here to be read. */
  readonly uncheckedCalls: readonly number[];
  /** Whether it was held to what its parent's transcript says of it. */
  readonly parent: ParentState;
  /** Null: no record is dated before one that it follows. */
  readonly clockBack: ClockBack | null;
  readonly findings: readonly Finding[];
}

export interface VerifyReport {
  readonly transcripts: readonly TranscriptReport[];
  /** What belongs to no transcript. */
  readonly findings: readonly Finding[];
  /** Of a copy of everything: segments that are too young to be missed in the index of segments, and that it does not name. */
  readonly unnamedSegments: readonly string[];
  /** False: nothing is said of bodies. */
  readonly bodiesVerified: boolean;
  readonly ok: boolean;
}
