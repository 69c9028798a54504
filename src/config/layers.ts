import { z } from "zod";
import type { Json } from "../scope/call.ts";
import { type Entry, parseEntries } from "../scope/entry.ts";

/** Bounds on calls, in the language of scopes. */

export const entries = z.unknown().transform((value, ctx): readonly Entry[] => {
  const parsed = parseEntries(value, "");
  if (parsed.ok) return parsed.value;
  ctx.addIssue({ code: "custom", message: `${parsed.error.path.replace(/^\./, "")}: ${parsed.error.message}` });
  return z.NEVER;
});

/** One entry of a scope as a person writes it. The full grammar is checked when the configuration is read. */
export interface ScopeEntry {
  readonly type: "http";
  readonly upstream: string;
  readonly operations: readonly string[];
  readonly where?: Readonly<Record<string, Json>>;
}
