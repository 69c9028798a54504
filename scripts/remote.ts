// Where a credential may be sent, as somebody has said it: a gate, or an issuer. Never in the clear beyond this machine.

import { isLoopback } from "../src/loopback.ts";
import { err, ok, type Result } from "../src/result.ts";

/** The error says what is wrong, and stands behind the name of what was said. */
export function parseRemote(text: string): Result<URL, string> {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !(url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url))))
    return err("not an https URL (http is for loopback only)");
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "")
    return err("no credentials, query or fragment");
  return ok(url);
}

/** E.g. `https://gate.example.com`, with or without the slash of an empty path. */
export function parseGate(text: string): Result<string, string> {
  const url = parseRemote(text);
  if (!url.ok) return url;
  return url.value.pathname === "/" ? ok(url.value.origin) : err("an origin has no path");
}
