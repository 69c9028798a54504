import type { Deployment } from "../deployment.ts";
import { type Human, verifyIdToken } from "../identity/id-token.ts";
import { err, type Result } from "../result.ts";

/**
 * A human's own OIDC token, issued to the client of this door alone: a platform's, which the platform holds, approves
 * nothing, and neither does an admin's.
 */
export async function authenticateHuman(
  request: Request,
  { config }: Deployment,
  nowMs: number,
): Promise<Result<Human, string>> {
  const { mandates, identityProviders } = config;
  if (mandates === undefined) return err("this gate takes no mandates");
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
  if (token === undefined) return err("no bearer token");
  const human = await verifyIdToken(token, identityProviders[mandates.identityProvider]!, mandates.audience, nowMs);
  if (!human.ok) return err(human.error.reason);
  return nowMs >= human.value.issuedAtMs + mandates.tokenMaxAgeSeconds * 1_000
    ? err("the token is older than mandates.tokenMaxAgeSeconds")
    : human;
}
