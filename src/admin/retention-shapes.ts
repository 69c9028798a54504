import * as z from "zod";
import type { ErasureState, HoldState } from "../retention/contract.ts";

/** What the admin's door answers with about holds and erasures. */

const count = z.int().nonnegative();
const timeMs = z.int().nonnegative().describe("Milliseconds since 1970");

export const holdShape = z.strictObject({
  id: z.uuid(),
  subject: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("human"), id: z.string() }),
    z.strictObject({ kind: z.literal("task"), id: z.string() }),
    z.strictObject({ kind: z.literal("everything") }),
  ]),
  reason: z.string(),
  by: z.string(),
  atMs: timeMs,
  released: z
    .strictObject({ atMs: timeMs, by: z.array(z.string()), reason: z.string() })
    .nullable()
    .describe("Null while it stands"),
  releaseAskedBy: z.array(z.string()).describe("Who has asked to release it within the last hour: it takes two"),
}) satisfies z.ZodType<HoldState>;

export const awaitingHoldShape = holdShape.extend({ awaiting: z.string() });

export const holdPageShape = z.strictObject({
  holds: z.array(holdShape).describe("Newest first"),
  next: z.string().nullable().describe("For `before`; null: the last page"),
});

export const erasureShape = z.strictObject({
  id: z.uuid(),
  human: z.string(),
  task: z.string().nullable().describe("Null: all tasks"),
  reason: z.string(),
  by: z.string(),
  atMs: timeMs,
  beforeMs: timeMs.describe("Bodies of records up to then are meant"),
  status: z
    .enum(["running", "stopped", "done", "incomplete"])
    .describe("`stopped`: by a hold. `incomplete`: it is over, and something is left"),
  certificate: z.string().describe("Key in the bucket of the signed certificate"),
  objects: count.describe("Deleted from the bucket"),
  bytes: count.describe("Of these objects"),
  rewritten: count.describe("Objects written anew without what was meant"),
  instances: count.describe("That were asked for what they still held"),
  blanked: count.describe("Bodies that went there"),
  leftCount: count,
  left: z.array(z.strictObject({ what: z.string(), why: z.string() })).describe("The first hundred"),
  stoppedBy: z.string().nullable().describe("The hold"),
  endedAtMs: timeMs.nullable(),
}) satisfies z.ZodType<ErasureState>;
