import * as z from "zod";
import type { Opening } from "./contract.ts";
import { RECEIPT_INSTANCES_MAX, type Receipt } from "./receipt.ts";
import { ALL_ACTS, REACHES, type Reach, type Switch } from "./switch.ts";

/** What switches and receipts look like to who reads them, strictly: the admin API says so, and the verifier holds to it. */

const timeMs = z.int().nonnegative().describe("Milliseconds since 1970 on the switchboard's clock");
const count = z.int().nonnegative();
const id = z.string().min(1);

/** A target as it is kept: a human named by an address stands there as the address's digest. */
const target = z.strictObject({
  instance: id.optional(),
  task: id.optional(),
  human: id.optional(),
  agent: id.optional(),
  agentVersion: id.optional(),
  upstream: id.optional(),
  mandate: id.optional(),
});

const cause = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("set"),
    issuer: z.string(),
    jti: z.string(),
    event: z.string(),
    txn: z.string().exactOptional(),
  }),
  z.strictObject({ kind: z.literal("rule"), rule: z.string(), instance: z.string() }),
  z.strictObject({ kind: z.literal("renewal"), client: z.string(), instance: z.string() }),
]);

export const switchMembers = {
  id: z.uuid(),
  reach: z.enum(Object.keys(REACHES) as [Reach, ...Reach[]]),
  target,
  act: z.enum(ALL_ACTS),
  reason: z.string().min(1),
  by: z
    .string()
    .min(1)
    .describe("A human's id; else break-glass:<name>, transmitter:<name>, rule:<name>, platform:<name>"),
  cause: cause.nullable().describe("Null: the decision of a person at this gate"),
  atMs: timeMs.describe("When it was accepted, in milliseconds since 1970 on the switchboard's clock"),
  untilMs: timeMs.nullable().describe("When it opens by itself; null: when somebody opens it"),
  groups: z
    .array(z.string())
    .exactOptional()
    .describe("Of `narrow` alone: the groups that the human still has, of those that entitle to something"),
  eventAtMs: timeMs
    .exactOptional()
    .describe("Of `narrow` alone: when that was so; who was enrolled on a later word of the provider is not in reach"),
};
export const switchShape = z.strictObject(switchMembers) satisfies z.ZodType<Switch>;

export const statusShape = z
  .enum(["accepted", "pending", "done", "resumed"])
  .describe(
    "accepted: it stands, no shard has answered; pending: somebody in reach may still act; done: nobody can, or could before it was opened; resumed: a pause that was opened before it was done, and is carried on no more",
  );

export const openingShape = z.strictObject({
  atMs: timeMs,
  by: z.string().describe("A human's id; expiry: its time was over"),
  reason: z.string(),
}) satisfies z.ZodType<Opening>;

export const receiptShape = z.strictObject({
  iss: z.string().describe("The gate's origin"),
  switch: switchShape,
  status: statusShape,
  opened: openingShape.nullable().describe("Null while it is closed"),
  reached: count.describe("Instances that may have acted when it came, and have acknowledged it"),
  idle: count.describe(
    "In reach without a running confirmation: they could do nothing, and learn of it before their next call",
  ),
  cut: count.describe("Running calls that were cut; each Worker has confirmed"),
  unconfirmed: count.describe("Running calls whose Worker has not confirmed yet"),
  acceptedAtMs: timeMs,
  firstAcknowledgedAtMs: timeMs.nullable(),
  p50AcknowledgedAtMs: timeMs.nullable().describe("Nearest rank"),
  p99AcknowledgedAtMs: timeMs.nullable().describe("Nearest rank"),
  lastAcknowledgedAtMs: timeMs.nullable(),
  lastByteAtMs: timeMs.nullable().describe("When a byte of a cut call last passed, in either direction"),
  instances: z
    .array(z.strictObject({ instance: id, acknowledgedAtMs: timeMs, cut: count, unconfirmed: count }))
    .max(RECEIPT_INSTANCES_MAX)
    .nullable()
    .describe("Null: more than a receipt names"),
  missing: count.describe("Instances that may have acted when it came, and have not acknowledged it"),
  lastStoppedByMs: timeMs.nullable().describe("The latest `stoppedByMs` of those; null where none is missing"),
  unheardShards: z
    .int()
    .positive()
    .exactOptional()
    .describe("Roster shards that have not answered: whoever is enlisted there is not counted. Absent where all have"),
  unreached: z
    .array(z.strictObject({ instance: id, stoppedByMs: timeMs }))
    .max(RECEIPT_INSTANCES_MAX)
    .nullable()
    .describe("Not acknowledged; from `stoppedByMs` on they admit nothing. Null: more than a receipt names"),
}) satisfies z.ZodType<Receipt>;
