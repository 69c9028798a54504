import { z } from "zod";
import { delegation } from "./delegation.ts";
import { meters, prices } from "./meters.ts";
import { httpUrl, positive, secretName } from "./names.ts";
import { redactionRules } from "./redaction.ts";

/** What frames or routes a request, says what its body is, or is the gate's own: never a place for a credential. */
const NO_CREDENTIAL_HEADER =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|host|expect|content-.*|accept-encoding|dpop)$/i;

export const upstream = z.strictObject({
  type: z.literal("http").default("http"),
  /** The gate's `/<name>/rest` becomes `<baseUrl>/rest`. */
  baseUrl: httpUrl.refine((text) => !text.endsWith("/"), "no slash at the end"),
  /** `{secret}` in `value` is replaced when the call leaves, by the one file that opens secrets. */
  credential: z.strictObject({
    kind: z.literal("header"),
    header: z
      .string()
      .regex(/^[A-Za-z0-9-]{1,64}$/, "a header name")
      .refine(
        (name) => !NO_CREDENTIAL_HEADER.test(name),
        "a header that carries credentials, not Host, Content-* or the like",
      ),
    secret: secretName,
    value: z.string().includes("{secret}").default("Bearer {secret}"),
  }),
  /** `refuse` where the upstream is known to decode `%2F` before it routes. */
  encodedSlash: z.enum(["data", "refuse"]).default("data"),
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
