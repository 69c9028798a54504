import * as z from "zod";

/** What the admin's door says of requests for approval. */

const timeMs = z.int().nonnegative().describe("Milliseconds since 1970");

const decisionShape = z.strictObject({
  verdict: z.enum(["approved", "denied"]),
  by: z.string(),
  email: z.string().nullable(),
  reason: z.string(),
  atMs: timeMs,
});

/** In a list: what the call is, without its headers. */
export const approvalSummaryShape = z.strictObject({
  id: z.uuid(),
  state: z.enum(["asked", "approved", "used", "denied", "expired", "cancelled"]),
  instance: z.string(),
  human: z.string().describe("Whom the agent acts for"),
  agent: z.string(),
  agentVersion: z.string(),
  task: z.string(),
  purpose: z.string(),
  upstream: z.string(),
  method: z.string(),
  url: z.string().describe("At the upstream, with its query"),
  entries: z.array(z.string()).describe("The boundaries that hold it back"),
  groups: z.array(z.array(z.string())).describe("The approver is in one group of each"),
  notDelegator: z.boolean().describe("Whom the agent acts for may not decide"),
  askedAtMs: timeMs,
  expiresAtMs: timeMs.describe("Until then it can be decided; milliseconds since 1970"),
  decision: decisionShape.nullable(),
  validUntilMs: timeMs.nullable().describe("Until then the approval can be used; milliseconds since 1970"),
  endedAtMs: timeMs.nullable(),
  cause: z.string().nullable().describe("Why it expired or was cancelled"),
  call: z.int().nullable().describe("`seq` of the call that has used it"),
});

export const approvalShape = approvalSummaryShape.extend({
  seq: z.int().describe("Of its record in the instance's transcript"),
  headers: z.array(z.tuple([z.string(), z.string()])),
  body: z
    .looseObject({ digest: z.string().nullable(), bytes: z.int().nullable(), mediaType: z.string().nullable() })
    .nullable()
    .describe("As its record has it: `digest` is the SHA-256 of a salt and the bytes. Null: no body"),
});

export const approvalPageShape = z.strictObject({
  approvals: z.array(approvalSummaryShape).describe("Newest first"),
  next: z.string().nullable().describe("For `before`; null: the last page"),
});
