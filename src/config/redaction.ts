import * as z from "zod";
import { type Operation, parseOperation } from "../scope/template.ts";

/** What of a call is never written down: by JSON pointer in bodies, by name in headers and queries. */

const MAX_POINTER_LENGTH = 256;
const MAX_PER_RULE = 64;
const MAX_RULES = 64;

/** One way into a JSON body, unescaped (RFC 6901 §4). */
export interface FieldPattern {
  /** `*` stands for any member or element. */
  readonly tokens: readonly string[];
}

const POINTER = /^(?:\/(?:[^~/]|~[01])*)*$/;

const field = z.string().transform((text, ctx): FieldPattern => {
  const isPointer = text.length <= MAX_POINTER_LENGTH && POINTER.test(text);
  if (!isPointer) {
    const message = `a JSON pointer (RFC 6901) of at most ${MAX_POINTER_LENGTH} characters, "*" for any member or element`;
    ctx.addIssue({ code: "custom", message });
    return z.NEVER;
  }
  // In this order, so that `~01` is `~1`.
  const unescapeToken = (token: string): string => token.replaceAll("~1", "/").replaceAll("~0", "~");
  return { tokens: text.split("/").slice(1).map(unescapeToken) };
});

/** By these a reader of the record knows what its bytes are. */
const FRAMING = ["content-type", "content-encoding", "content-length"];

const header = z
  .string()
  .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$/, "a header name")
  .transform((name) => name.toLowerCase())
  .refine((name) => !FRAMING.includes(name), "a header that says what the recorded bytes are");

const parameter = z
  .string()
  .min(1)
  .max(MAX_POINTER_LENGTH)
  .refine((name) => name.isWellFormed(), "a name that is Unicode");

const operation = z.string().transform((text, ctx): Operation => {
  const parsed = parseOperation(text);
  if (parsed.ok) return parsed.value;
  ctx.addIssue({ code: "custom", message: parsed.error });
  return z.NEVER;
});

const listOf = <T extends z.ZodType>(one: T) => z.array(one).min(1).max(MAX_PER_RULE).readonly();

const redactionRule = z
  .strictObject({
    /** Stands in the record in place of what it took out. */
    name: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, "a lower-case name of at most 63 letters, digits and dashes"),
    /** Of fields and headers. Parameters of a query are redacted wherever they occur. */
    in: z.enum(["request", "answer", "both"]),
    /** All of the upstream's, where it is left out. */
    operations: listOf(operation).optional(),
    fields: listOf(field).optional(),
    /** In lower case once read. */
    headers: listOf(header).optional(),
    query: listOf(parameter).optional(),
  })
  .refine(
    ({ fields, headers, query }) => fields !== undefined || headers !== undefined || query !== undefined,
    "a rule that redacts nothing: give fields, headers or query",
  );

/** The rules of one upstream. */
export const redactionRules = z
  .array(redactionRule)
  .max(MAX_RULES)
  .readonly()
  .superRefine((rules, ctx) => {
    rules.forEach(({ name }, i) => {
      if (rules.findIndex((rule) => rule.name === name) !== i)
        ctx.addIssue({ code: "custom", path: [i, "name"], message: "the name of another rule of this upstream" });
    });
  });

export type RedactionRule = z.output<typeof redactionRule>;
