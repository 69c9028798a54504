import type { Denial } from "../denial.ts";
import { PROOF_ALGORITHMS } from "../grant/jwk.ts";

/**
 * The one problem with a type of its own: an agent must wait, and not look for another way. 503 and `Retry-After`, which
 * clients try again by themselves; a 202 would look like a success to them. The same for whatever is pending.
 */
export const PENDING = "/problems/approval-pending";
const PENDING_RETRY_SECONDS = "5";

const ALGS = PROOF_ALGORITHMS.join(" ");

/**
 * The outer face of a denial: RFC 9457 problem details of one shape, which tell the agent no more than the status.
 * The 401 depends on the credentials alone: it names one metadata document, not the one of the path that was asked for.
 */
export function answerTo(denial: Denial, origin: string): Response {
  switch (denial.kind) {
    case "unauthenticated": {
      const error = denial.code === "none" ? "" : ` error="${denial.code}",`;
      return problem(401, "Unauthorized", {
        "WWW-Authenticate": `DPoP${error} algs="${ALGS}", resource_metadata="${origin}/.well-known/oauth-protected-resource"`,
      });
    }
    case "absent":
      return problem(404, "Not Found");
    case "too-large":
      return problem(413, "Content Too Large");
    case "limited":
      return problem(429, "Too Many Requests", { "Retry-After": String(denial.retryAfterSeconds) });
    case "exhausted": {
      const { retryAfterSeconds } = denial;
      const headers = retryAfterSeconds === undefined ? {} : { "Retry-After": String(retryAfterSeconds) };
      return problem(429, "Too Many Requests", headers);
    }
    case "pending":
      return problem(503, "Service Unavailable", { "Retry-After": PENDING_RETRY_SECONDS }, `${origin}${PENDING}`);
    case "unavailable":
      return problem(503, "Service Unavailable", { "Retry-After": "1" });
    case "upstream-failed":
      return problem(denial.status, denial.status === 504 ? "Gateway Timeout" : "Bad Gateway");
  }
}

function problem(status: number, title: string, headers: Record<string, string> = {}, type = "about:blank"): Response {
  return new Response(JSON.stringify({ type, title, status }), {
    status,
    headers: { "Content-Type": "application/problem+json", "Cache-Control": "no-store", ...headers },
  });
}
