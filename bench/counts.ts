/** What the platform bills, as `bench/counted-entry.ts` counts it. */
export interface Counts {
  /** Of Durable Objects, alarms not among them. */
  requests: number;
  alarms: number;
  /** Written. */
  rows: number;
  alarmsSet: number;
  puts: number;
  putBytes: number;
  lastPutAtMs: number;
  /** Of each segment, when the index heard of it: how long its oldest record had waited, and for how many records it stands. */
  segments: { readonly lagMs: number; readonly records: number }[];
}
