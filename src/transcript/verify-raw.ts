import { RAW_OBJECT_MAX_BYTES, rawBodyKey } from "./layout.ts";
import type { GatheredBody } from "./verify-body.ts";
import type { Finding } from "./verify-findings.ts";
import type { RawName } from "./verify-layout.ts";
import type { TranscriptObjects } from "./verify-objects.ts";
import { type BodyName, bodyId } from "./verify-stated-bodies.ts";

/** The raw objects of one transcript, each body's in order, until the line that stands for them is met. */
export class RawObjects {
  readonly #byBody = new Map<string, RawName[]>();

  constructor(names: readonly RawName[]) {
    for (const name of names) {
      const group = this.#byBody.get(bodyId(name));
      if (group === undefined) this.#byBody.set(bodyId(name), [name]);
      else group.push(name);
    }
    for (const group of this.#byBody.values()) group.sort((a, b) => a.no - b.no);
  }

  take(body: BodyName): readonly RawName[] {
    const taken = this.#byBody.get(bodyId(body)) ?? [];
    this.#byBody.delete(bodyId(body));
    return taken;
  }
  has(body: BodyName): boolean {
    return this.#byBody.has(bodyId(body));
  }
  /** Those that no line stood for. Each group holds at least one. */
  get left(): Iterable<readonly RawName[]> {
    return this.#byBody.values();
  }
}

/** A raw object that should be here and is not. */
export interface MissingRaw extends Finding {
  readonly isMissing: true;
}

/**
 * Streams the raw objects of a body through its digest, in order, never more than a chunk in memory. Gives the first
 * thing that is wrong: what follows it proves nothing.
 */
export async function readRawObjects(
  objects: TranscriptObjects,
  partition: string,
  body: GatheredBody,
  names: readonly RawName[],
): Promise<Finding | MissingRaw | null> {
  const { stated } = body;
  // Without a stated digest there is nothing to hold them to.
  if (stated.bytes === null || (stated.part !== "request" && stated.part !== "answer")) return null;
  for (const [index, { key, no }] of names.entries()) {
    if (no !== index) return missing(rawBodyKey(partition, stated.seq, stated.part, index), body);
    const problem = await readRawObject(objects, key, body, stated.bytes);
    if (problem !== null) return { place: key, problem };
  }
  return body.isWhole ? null : missing(rawBodyKey(partition, stated.seq, stated.part, names.length), body);
}

async function readRawObject(
  objects: TranscriptObjects,
  key: string,
  body: GatheredBody,
  statedBytes: number,
): Promise<string | null> {
  const object = await objects.open(key);
  if (!object.ok) return object.error;
  body.rawKeys.push(key);
  let bytes = 0;
  for await (const chunk of object.value) {
    bytes += chunk.length;
    if (bytes > RAW_OBJECT_MAX_BYTES) return `more than the ${RAW_OBJECT_MAX_BYTES} bytes of a raw object`;
    const room = statedBytes - body.bytes;
    if (chunk.length > room && !body.stated.mayBeMore)
      return `more than the ${statedBytes} bytes of ${body.stated.place}`;
    if (chunk.length > room) body.hasSurplus = true;
    body.addBytes(chunk.length > room ? chunk.subarray(0, room) : chunk);
  }
  return bytes === 0 ? "a raw object that holds nothing" : null;
}

const missing = (place: string, { bytes, stated }: GatheredBody): MissingRaw => ({
  place,
  problem: `missing: ${bytes} of the ${stated.bytes} bytes of ${stated.place} come before it`,
  isMissing: true,
});
