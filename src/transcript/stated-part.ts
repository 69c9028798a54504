import * as z from "zod";
import type { BodyPart } from "./body-line.ts";

const reference = z.object({ digest: z.string().nullable(), bytes: z.number().int().nonnegative().nullable() });
/** What of a record says that it has bodies. Loose: a newer gate may say more. */
const recordShape = z.object({
  type: z.string(),
  seq: z.number().int().nonnegative().optional(),
  at: z.number().optional(),
  call: z.number().optional(),
  body: reference.nullish(),
  requestBody: reference.optional(),
  claims: reference.optional(),
});

/** What the records say of a body. */
export interface StatedPart {
  /** Null: not yet, or its object was reset while it came. */
  readonly bytes: number | null;
  /** Of the record that states it. */
  readonly atMs: number;
  /** `seq` of the record behind which nothing of it was written; null: its call runs. */
  readonly untilSeq: number | null;
}

/** Reads records, from that with this `seq` on, up to where they have said all of this body. Null: there is none. */
export async function statePart(lines: AsyncIterable<string>, seq: number, part: BodyPart): Promise<StatedPart | null> {
  let call: { readonly atMs: number } | null = null;
  for await (const line of lines) {
    const read = recordShape.parse(JSON.parse(line));
    const { type, at: atMs = 0, seq: untilSeq = null } = read;
    if (call !== null && type === "answer" && read.call === seq) {
      const stated = part === "answer" ? (read.body ?? null) : (read.requestBody ?? { digest: null, bytes: null });
      // Of an answer without a digest more may be here than is said.
      const of = part === "answer" ? atMs : call.atMs;
      return stated === null ? null : { bytes: bytesOf(stated), atMs: of, untilSeq };
    }
    if (read.seq !== seq) continue;
    if (part === "claims")
      return read.claims === undefined ? null : { bytes: bytesOf(read.claims), atMs, untilSeq: seq };
    if (part === "request" && (read.body ?? null) === null) return null;
    if (part === "request" && read.body?.digest !== null) return { bytes: bytesOf(read.body!), atMs, untilSeq: seq };
    if (type !== "call") return null;
    call = { atMs };
  }
  if (call === null) return null;
  // An answer's time is that of a record which is still to come: no erasure reaches it.
  return { bytes: null, atMs: part === "answer" ? Number.POSITIVE_INFINITY : call.atMs, untilSeq: null };
}

const bytesOf = ({ digest, bytes }: z.infer<typeof reference>): number | null =>
  digest === null && bytes !== 0 ? null : bytes;
