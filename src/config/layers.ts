import * as z from "zod";
import type { Json } from "../scope/call.ts";
import { type Entry, parseEntries } from "../scope/entry.ts";
import { type ApprovalPolicy, approvalPolicy } from "./approval.ts";

/** Bounds on calls, in the language of scopes. */

export const entries = z.unknown().transform((value, ctx): readonly Entry[] => {
  const parsed = parseEntries(value, "");
  if (parsed.ok) return parsed.value;
  const { path, message } = parsed.error;
  ctx.addIssue({ code: "custom", message: path === "" ? message : `${path.replace(/^\./, "")}: ${message}` });
  return z.NEVER;
});

/** One entry of a scope as a person writes it. The full grammar is checked when the configuration is read. */
export interface ScopeEntry {
  readonly type: "http";
  readonly upstream: string;
  readonly operations: readonly string[];
  readonly where?: Readonly<Record<string, Json>>;
}

/** An entry of the boundaries. Where it asks for approval it allows as well: the grant may hold it, and the call asks. */
export interface BoundaryEntry extends Entry {
  /** Null: no approval. */
  readonly approval: ApprovalPolicy | null;
}

export interface BoundarySource extends ScopeEntry {
  readonly effect?: "allow" | "approve";
  readonly approval?: z.input<typeof approvalPolicy>;
}

const effect = z.discriminatedUnion("effect", [
  z.strictObject({
    effect: z.literal("allow"),
    approval: z.undefined({ error: 'only with effect: "approve"; without it nobody is asked' }).optional(),
  }),
  z.strictObject({ effect: z.literal("approve"), approval: approvalPolicy.prefault({}) }),
]);

/** INVARIANT: the two members are read here alone. To the parser of scopes they are unknown fields, and it refuses them. */
export const boundaries = z.unknown().transform((value, ctx): readonly BoundaryEntry[] => {
  const split = Array.isArray(value) ? value.map(splitEffect) : [];
  const parsed = entries.safeParse(Array.isArray(value) ? split.map(({ rest }) => rest) : value);
  for (const issue of parsed.error?.issues ?? []) ctx.addIssue({ code: "custom", message: issue.message });
  const policies = split.map(({ own }, i) => {
    const read = effect.safeParse(own);
    for (const { path, message } of read.error?.issues ?? [])
      ctx.addIssue({ code: "custom", path: [i, ...path], message });
    return read.success && read.data.effect === "approve" ? read.data.approval : null;
  });
  return (parsed.data ?? []).map((entry, i) => ({ ...entry, approval: policies[i] ?? null }));
});

/** What is left keeps its prototype: one that hides a condition is the parser's to refuse. */
function splitEffect(value: unknown): { readonly own: object; readonly rest: unknown } {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { own: ALLOW, rest: value };
  const { effect = "allow", approval, ...rest } = value as { effect?: unknown; approval?: unknown };
  const own = { effect, ...(approval === undefined ? {} : { approval }) };
  return { own, rest: Object.assign(Object.create(Object.getPrototypeOf(value) as object | null), rest) };
}

const ALLOW = { effect: "allow" };
