// How a bucket may fail, and what is said of its puts: between the gate and who drives the soak.

/** Shares, from 0 to 1, of the operations that meet each fate. */
export interface BucketFaults {
  /** Fails, and nothing was stored. */
  readonly failBefore: number;
  /** Stored, and the answer is an error all the same. */
  readonly failAfter: number;
  readonly slow: number;
  readonly slowMs: number;
  /** Never answers, and nothing is stored. */
  readonly hang: number;
  readonly getFails: number;
  readonly listFails: number;
  /** All of it fails. */
  readonly isDown: boolean;
}

export const NO_FAULTS: BucketFaults = {
  failBefore: 0,
  failAfter: 0,
  slow: 0,
  slowMs: 0,
  hang: 0,
  getFails: 0,
  listFails: 0,
  isDown: false,
};

/** What one life of workerd did to its puts, gets and lists. */
export type FaultCounts = Record<string, number>;

/** A put as the witness hears of it. `digest`: of the bytes after decompression; null where they are a stream. */
export interface PutReport {
  readonly key: string;
  readonly digest: string | null;
  readonly isConditional: boolean;
}
