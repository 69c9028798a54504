import type { Result } from "../result.ts";

/** What a transcript is made of. Other prefixes of the bucket (an index, say) prove nothing and are not looked at. */
export const OBJECT_PREFIXES = ["transcripts/", "bodies/", "erasures/"] as const;

/** The bucket, or a copy of it. Keys as in the bucket; bytes as stored, compressed. */
export interface TranscriptObjects {
  /** Every key with this prefix, in any order. */
  keys(prefix: (typeof OBJECT_PREFIXES)[number]): AsyncIterable<string> | Iterable<string>;
  /**
   * The error says, as a finding, why there is nothing to read under a key that was listed. What is no fact of the copy
   * (the network, the disk) is thrown: then nothing was verified.
   */
  open(key: string): Promise<Result<AsyncIterable<Uint8Array>, string>>;
}
