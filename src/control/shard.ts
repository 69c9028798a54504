/**
 * Which roster shard an instance is enlisted with: FNV-1a over its id. Decided once, at enrolment, and kept with it, so
 * that a later number of shards moves nobody.
 */
export function shardOf(instance: string, shards: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < instance.length; i++) hash = Math.imul(hash ^ instance.charCodeAt(i), 0x01000193) >>> 0;
  return hash % shards;
}
