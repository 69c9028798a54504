import * as z from "zod";
import { credential } from "./credential.ts";
import { delegation } from "./delegation.ts";
import { meters, prices } from "./meters.ts";
import { httpUrl, positive } from "./names.ts";
import { redactionRules } from "./redaction.ts";

export const upstream = z.strictObject({
  type: z.literal("http").default("http"),
  /** The gate's `/<name>/rest` becomes `<baseUrl>/rest`. */
  baseUrl: httpUrl.refine((text) => !text.endsWith("/"), "no slash at the end"),
  /** A row of the table in src/upstream/credentials/. */
  credential,
  /** `refuse` where the upstream is known to decode `%2F` before it routes. */
  encodedSlash: z.enum(["data", "refuse"]).default("data"),
  /** Whether an agent may ask for a part of an answer; see src/config/ranges.ts. */
  ranges: z.boolean().default(false),
  /** Headers of an agent's request that pass besides those about content; in lower case once read. */
  forwardHeaders: z
    .array(
      z
        .string()
        .regex(/^[A-Za-z0-9_-]{1,64}$/, "a header name")
        .transform((name) => name.toLowerCase()),
    )
    .readonly()
    .default([]),
  /** Left out: the upstream is not told who acts for whom. */
  delegation: delegation.optional(),
  /** What of its calls is not written down. */
  redact: redactionRules.default([]),
  /** What its answers say was used, by unit, and units that are computed from those: money. */
  meters,
  prices,
  firstByteTimeoutMs: positive.default(60_000),
  idleTimeoutMs: positive.default(120_000),
  totalTimeoutMs: positive.default(900_000),
  maxRequestBytes: positive.default(104_857_600),
  maxAnswerBytes: positive.default(1_073_741_824),
});
