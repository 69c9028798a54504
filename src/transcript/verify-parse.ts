import type * as z from "zod";
import { err, ok, type Result } from "../result.ts";

/** What a record says, or the first member that is not as it must be. */
export function parseSaid<T extends z.ZodType>(shape: T, envelope: object): Result<z.output<T>, string> {
  const parsed = shape.safeParse(envelope);
  return parsed.success ? ok(parsed.data) : err(placeOf(parsed.error.issues[0]));
}

/** Of a union, the branch that came furthest says it best; the first is the one that is meant. */
function placeOf(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return "";
  if (issue.code !== "invalid_union" || issue.errors[0]?.[0] === undefined) return issue.path.join(".");
  return [...issue.path, placeOf(issue.errors[0][0])].filter((part) => part !== "").join(".");
}
