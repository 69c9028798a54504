import type { JsonObject } from "../grant/compact.ts";

/**
 * Pure. RFC 8693 §4.4: where the provider says who may act for this human, it is that party and nobody else. It names the
 * platform as it knows it. A member that is not understood could be the one that excludes it.
 */
export function isBarredByMayAct(claims: JsonObject, issuer: string, actor: string): boolean {
  const mayAct = claims["may_act"];
  if (mayAct === undefined) return false;
  if (typeof mayAct !== "object" || mayAct === null || Array.isArray(mayAct)) return true;
  const { sub, iss = issuer, ...others } = mayAct as JsonObject;
  return sub !== actor || iss !== issuer || Object.keys(others).length > 0;
}

export const BARRED_BY_MAY_ACT = "may_act does not name this client alone";
