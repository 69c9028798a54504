import { readText } from "../read-text.ts";
import { err, ok, type Result } from "../result.ts";
import { type OAuthError, oauthError } from "./oauth-error.ts";

/** A request's parameters; each at most once but for those that RFC 8693 §2.1 lets come again. */
export interface Form {
  get(name: string): string | undefined;
  all(name: string): readonly string[];
}

const FORM_MAX_BYTES = 131_072;
const REPEATABLE = new Set(["resource", "audience"]);
/** A scope has at most 64 entries, so at most 64 targets. */
const VALUES_MAX = 64;
/** Both repeatable ones in full, and far more than there are others. */
const PAIRS_MAX = 200;

/** RFC 6749 §3.2: POST, form-encoded, nothing in the query, no parameter twice; an empty value is an omitted one. */
export async function parseForm(request: Request): Promise<Result<Form, OAuthError>> {
  const bad = (description: string) => err(oauthError("invalid_request", description));
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/x-www-form-urlencoded") return bad("the body must be application/x-www-form-urlencoded");
  if (request.url.includes("?")) return bad("parameters belong in the body, not in the query");
  const text = await readText(request, FORM_MAX_BYTES);
  if (text === undefined) return bad("the body is too long, or not UTF-8");
  const values = new Map<string, string[]>();
  const timesNamed = new Map<string, number>();
  let pairs = 0;
  for (const [name, value] of new URLSearchParams(text)) {
    if (++pairs > PAIRS_MAX) return bad(`more than ${PAIRS_MAX} parameters`);
    const times = timesNamed.get(name) ?? 0;
    // Twice is twice, though one of them is empty: which of the two counts is read differently elsewhere.
    if (times > 0 && !REPEATABLE.has(name)) return bad("a parameter is given twice");
    if (times >= VALUES_MAX) return bad(`a parameter is given more than ${VALUES_MAX} times`);
    timesNamed.set(name, times + 1);
    if (value === "") continue;
    const known = values.get(name);
    if (known === undefined) values.set(name, [value]);
    else known.push(value);
  }
  return ok({ get: (name) => values.get(name)?.[0], all: (name) => values.get(name) ?? [] });
}
