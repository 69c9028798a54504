import * as z from "zod";
import type { Json } from "../scope/call.ts";
import type { ScopeEntry } from "./layers.ts";

/**
 * A deployment's own table of what must be allowed and what must be refused, beside its configuration. It is held to the
 * configuration before that leaves: `npx portcullis policy test`.
 */

export const CALL_LAYERS = ["route", "describe", "grant", "parent", "entitlement", "agent", "boundaries"] as const;
export const REQUEST_LAYERS = ["authorization_details", "parent", "entitlement", "agent", "boundaries"] as const;
export type CallLayer = (typeof CALL_LAYERS)[number];
export type RequestLayer = (typeof REQUEST_LAYERS)[number];

const json: z.ZodType<Json> = z.json();
/** Read in full as the token endpoint reads it, where the case is judged. */
const scope = z.array(json);

const who = {
  /** An e-mail address or an id; needed where entitlements name single humans. */
  human: z.string().min(1).optional(),
  groups: z.array(z.string()),
  agent: z.string(),
  /** Of a sub-agent: the agents above it, the root first. Their ceilings hold for it as well. */
  agentsAbove: z.array(z.string()).optional(),
  /** Of the grant that a sub-agent's is derived from. */
  parentScope: scope.optional(),
};

const name = z.string().trim().min(1);

const callCase = z
  .strictObject({
    name,
    /** Method, and path and query at the gate: `GET /github/repos/acme/widgets/issues?state=open`. */
    call: z.string().regex(/^[A-Z]+ \/\S*$/, "a method in upper case, a space, and the path at the gate"),
    headers: z.record(z.string(), z.string()).optional(),
    /** A text as it is; anything else as JSON, with the content type of JSON where no other is given. */
    body: json.optional(),
    ...who,
    /** The grant's `authorization_details`; without them the grant is not asked. */
    scope: scope.optional(),
    expect: z.enum(["allowed", "refused", "approval"]),
    /** Refused: which layer is the first to. Else: the layer that `operation` and `entry` are of. */
    layer: z.enum(CALL_LAYERS).optional(),
    /** By which operation it is allowed, as written, and where the entry stands. Of `layer`, by default the grant or the entitlement. */
    operation: z.string().optional(),
    entry: z.string().optional(),
  })
  .superRefine(({ expect, layer, operation, entry }, ctx) => {
    const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    if (expect === "refused" && operation !== undefined) wrong("operation", "only of a call that is not refused");
    if (expect === "refused" && entry !== undefined) wrong("entry", "only of a call that is not refused");
    if (expect !== "refused" && (layer === "route" || layer === "describe")) wrong("layer", "has no entries");
    if (expect !== "refused" && layer !== undefined && operation === undefined && entry === undefined)
      wrong("layer", "all layers allow what is not refused: say by which operation or entry this one does");
  });

const requestCase = z
  .strictObject({
    name,
    /** As a platform asks the token endpoint for a grant. */
    request: z.strictObject({ ...who, authorization_details: scope }),
    expect: z.enum(["granted", "refused"]),
    /** Refused: the place in `authorization_details`, and the layer that it exceeds. */
    entry: z.number().int().nonnegative().optional(),
    layer: z.enum(REQUEST_LAYERS).optional(),
  })
  .superRefine(({ expect, entry, layer }, ctx) => {
    const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    if (expect === "granted" && entry !== undefined) wrong("entry", "only of a request that is refused");
    if (expect === "granted" && layer !== undefined) wrong("layer", "only of a request that is refused");
  });

export type CallCase = z.output<typeof callCase>;
export type RequestCase = z.output<typeof requestCase>;
export type PolicyCase = CallCase | RequestCase;

type WithScope<Source> = {
  readonly [Key in keyof Source]: Key extends "scope" | "parentScope" ? readonly ScopeEntry[] : Source[Key];
};
/** As a person writes it. */
export type PolicyCaseSource =
  | WithScope<z.input<typeof callCase>>
  | (Omit<z.input<typeof requestCase>, "request"> & {
      // What must be refused may be of any form.
      readonly request: Omit<z.input<typeof requestCase>["request"], "authorization_details" | "parentScope"> & {
        readonly authorization_details: readonly ScopeEntry[] | readonly Json[];
        readonly parentScope?: readonly ScopeEntry[];
      };
    });

export class PolicyTestsError extends Error {
  override readonly name = "PolicyTestsError";
}

/** Checks a table whole. Throws one `PolicyTestsError` that names the path of every mistake. */
export const definePolicyTests = (source: readonly PolicyCaseSource[]): readonly PolicyCase[] =>
  parsePolicyTests(source);

/** The same of what a file holds, whoever wrote it. */
export function parsePolicyTests(source: unknown): readonly PolicyCase[] {
  if (!Array.isArray(source)) throw new PolicyTestsError("The policy tests are not valid:\n  (top): must be an array");
  const faults: string[] = [];
  const names = new Set<string>();
  const cases = source.flatMap((one: unknown, i): PolicyCase[] => {
    const isRequest = typeof one === "object" && one !== null && Object.hasOwn(one, "request");
    const parsed = (isRequest ? requestCase : callCase).safeParse(one);
    if (!parsed.success) {
      for (const { path, message } of parsed.error.issues)
        faults.push(`${[`[${i}]`, ...path.map(String)].join(".")}: ${message}`);
      return [];
    }
    if (names.has(parsed.data.name)) faults.push(`[${i}].name: another case has it`);
    names.add(parsed.data.name);
    return [parsed.data];
  });
  if (source.length === 0) faults.push("(top): holds no case");
  if (faults.length > 0)
    throw new PolicyTestsError(`The policy tests are not valid:\n${faults.map((line) => `  ${line}`).join("\n")}`);
  return cases;
}
