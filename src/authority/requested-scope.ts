import { resourceOf } from "../grant/claims.ts";
import { type Ceiling, type CeilingName, findExcess } from "../instance/ceilings.ts";
import { ok, type Result } from "../result.ts";
import { type Entry, parseAuthorizationDetails } from "../scope/entry.ts";
import type { Form } from "./form.ts";
import { failed, type OAuthError } from "./oauth-error.ts";

export function parseScope(form: Form): Result<readonly Entry[], OAuthError> {
  const text = form.get("authorization_details");
  if (text === undefined) return failed("invalid_request", "authorization_details is missing");
  const entries = parseAuthorizationDetails(text);
  return entries.ok
    ? entries
    : failed("invalid_authorization_details", `${entries.error.path}: ${entries.error.message}`);
}

/** RFC 8707: resource URLs (or upstream names as `audience`) may narrow `aud`; each must be one that the scope speaks of. */
export function parseTargets(
  form: Form,
  scope: readonly Entry[],
  origin: string,
): Result<readonly string[], OAuthError> {
  const upstreams = [...new Set(scope.map((entry) => entry.upstream))];
  const resources = upstreams.map((upstream) => resourceOf(origin, upstream));
  const asked = [
    ...form.all("resource"),
    ...form.all("audience").map((name) => (upstreams.includes(name) ? resourceOf(origin, name) : name)),
  ];
  if (asked.some((resource) => !resources.includes(resource)))
    return failed("invalid_target", "a resource is not one that authorization_details speaks of");
  return ok(asked.length === 0 ? resources : [...new Set(asked)]);
}

const LAYERS: Readonly<Record<CeilingName, string>> = {
  parent: "the parent's grant",
  entitlement: "the human's entitlement",
  agent: "the agent's ceiling",
  boundaries: "the organisation's boundaries",
};

/** Enough of an operation to be found by in the request, and no more in the journal. */
const OPERATION_MAX_CHARS = 200;

/** Says which entry is beyond a ceiling, which of its operations, and which ceiling that is. */
export function withinCeilings(scope: readonly Entry[], ceilings: readonly Ceiling[]): Result<null, OAuthError> {
  const excess = findExcess(scope, ceilings);
  if (excess === null) return ok(null);
  const { entry, operation, layer } = excess;
  const shown = operation.length > OPERATION_MAX_CHARS ? `${operation.slice(0, OPERATION_MAX_CHARS)}...` : operation;
  return failed(
    "invalid_authorization_details",
    `authorization_details[${entry}]: "${shown}" exceeds ${LAYERS[layer]}`,
  );
}
