import * as z from "zod";
import type { Member } from "../control/contract.ts";
import { openingShape, receiptShape, statusShape, switchMembers } from "../control/receipt-shape.ts";
import type { QuotaReading } from "../quota/contract.ts";

/** What the admin's door answers with. `openapi.ts` says it to who asks; a test holds every live answer to it. */

const count = z.int().nonnegative();
const timeMs = z.int().nonnegative().describe("Milliseconds since 1970");

/** RFC 9457. */
export const problemShape = z.strictObject({
  type: z.literal("about:blank"),
  title: z.string(),
  status: z.int(),
  detail: z.string().optional().describe("What was wrong, and where: by path"),
});

export const signedReceiptShape = receiptShape
  .extend({
    jws: z.string().describe("All the members before it, signed (RFC 7515) with a key that seals transcripts"),
  })
  .describe(
    "What a switch did, and when: times in milliseconds since 1970 on the switchboard's clock, none earlier than it was",
  );

export const summaryShape = z.strictObject({
  ...switchMembers,
  status: statusShape,
  opened: openingShape.nullable().describe("Null while it is closed"),
  liftAskedBy: z.array(z.string()).describe("Who has asked to lift it within the last hour, where that takes two"),
});

export const awaitingShape = summaryShape.extend({ awaiting: z.string() });

export const resumedShape = z.strictObject({ switches: z.array(summaryShape) });

const next = z.string().nullable();
export const switchPageShape = z.strictObject({
  switches: z.array(summaryShape).describe("Newest first"),
  next: next.describe("For `before`; null: the last page"),
});

export const memberShape = z.strictObject({
  instance: z.string().describe("The thumbprint of its key (RFC 7638)"),
  human: z.string(),
  emailDigest: z.string().nullable().describe("Of the human's e-mail address"),
  groupsAtMs: timeMs.describe("When the identity provider stated the human's groups; milliseconds since 1970"),
  task: z.string(),
  agent: z.string(),
  agentVersion: z.string(),
  client: z.string(),
  upstreams: z.array(z.string()),
  ancestors: z.array(z.string()).describe("Instances that it descends from: a switch of one of them is its own"),
  mandate: z.string().nullable().describe("The approval in advance under which it works"),
  agentsAbove: z.array(z.string()).describe("What those are, as `agent@version`: a switch of such an agent is its own"),
  parent: z.string().nullable().describe("The instance that provisioned it; null: a platform did"),
  deadlineMs: timeMs,
  enlistedAtMs: timeMs,
  confirmedUntilMs: timeMs.describe("Until then it may admit calls without asking; milliseconds since 1970"),
  state: z.enum(["live", "paused", "killed"]),
  narrowedBy: z.array(z.string()).describe("Switches that have taken groups from it: each says which are left"),
}) satisfies z.ZodType<Member>;

export const whereaboutsShape = z.strictObject({ instance: z.string(), human: z.string(), task: z.string() });
export const memberPageShape = z.strictObject({
  instances: z.array(memberShape),
  next: next.describe("For `after`; null: the last page"),
});

export const quotaShape = z
  .strictObject({
    quota: z.string(),
    key: z.string().describe("Whose: a task, a human, an agent, an upstream, `all`, or two of them with a dot"),
    period: z.strictObject({ fromMs: timeMs, untilMs: timeMs }).nullable().describe("Null: for good"),
    dimensions: z.array(
      z.strictObject({
        dimension: z.string().describe("`calls`, `bytes`, `units.<unit>`, `concurrency`, `rate`"),
        limit: z.number().nonnegative(),
        spent: z.number().nonnegative().describe("As far as instances have said so"),
        leased: z.number().nonnegative().describe("Given out to instances, and not said to be spent"),
      }),
    ),
    instances: count.describe("How many have leased of it in this period"),
  })
  .describe("A shared limit: what is not spent or leased is free") satisfies z.ZodType<QuotaReading>;

const uploadedAtMs = timeMs.describe("When it came into the bucket; milliseconds since 1970");
export const objectPageShape = z.strictObject({
  objects: z.array(z.strictObject({ key: z.string(), bytes: count, uploadedAtMs })),
  folders: z.array(z.string()).describe("With `folders=true`: what goes on behind the next slash, each once"),
  next: next.describe("For `cursor`; null: the last page"),
});

/** `data` of the events of a switch that is followed. */
export const progressShape = z.strictObject({
  switch: z.uuid(),
  status: statusShape,
  reached: count,
  idle: count,
  cut: count,
  unconfirmed: count,
  unreached: count.describe("How many have not acknowledged"),
});
/** Null: the switchboard could not be heard in time. */
export const pendingShape = progressShape.nullable();
export const failureShape = z.strictObject({ detail: z.string() });
