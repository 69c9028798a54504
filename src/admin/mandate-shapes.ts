import * as z from "zod";
import type { Mandate, Revocation } from "../mandate/contract.ts";
import { DAYS } from "../mandate/schedule.ts";
import type { Json } from "../scope/call.ts";

/** What the admin's door answers with about mandates. */

/** In the language of scopes. */
const entry = z.record(z.string(), z.unknown()) as unknown as z.ZodType<Json>;
const count = z.int().nonnegative();
const timeMs = z.int().nonnegative().describe("Milliseconds since 1970");

export const mandateShape = z.strictObject({
  id: z.uuid(),
  human: z.string().describe("Who approved it"),
  emailDigest: z.string().nullable(),
  groups: z.array(z.string()).describe("Those that the human had then"),
  groupsAtMs: timeMs.describe("When the identity provider said so"),
  approvedAtMs: timeMs,
  agent: z.string(),
  platform: z.string().describe("The client that may exchange it"),
  scope: z.array(entry).describe("RFC 9396, as approved"),
  purpose: z.string(),
  schedule: z
    .strictObject({ timeZone: z.string(), days: z.array(z.enum(DAYS)), from: z.string(), to: z.string() })
    .nullable()
    .describe("Null: at any time"),
  notBeforeMs: timeMs,
  expiresAtMs: timeMs,
  taskSeconds: count.describe("The longest that a task under it may last"),
  limits: z.strictObject({ calls: count.nullable(), bytes: count.nullable() }),
  maxUses: count.nullable(),
  perDay: count.nullable(),
  uses: count,
  revoked: z
    .strictObject({
      atMs: timeMs,
      by: z.string(),
      reason: z.string(),
      switch: z.uuid().nullable().describe("That ends who works under it"),
    })
    .nullable()
    .describe("Null: it was not"),
}) satisfies z.ZodType<Mandate & { readonly uses: number; readonly revoked: Revocation | null }>;

export const mandatePageShape = z.strictObject({
  mandates: z.array(mandateShape).describe("Newest first; fewer than `limit` where approvals broke off"),
  next: z.string().nullable().describe("For `before`; null: the last page"),
});
