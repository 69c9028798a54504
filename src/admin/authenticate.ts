import type { Config, Role } from "../config/define.ts";
import { verifyIdToken } from "../identity/id-token.ts";
import { err, ok, type Result } from "../result.ts";

export interface Admin {
  /** A human's id, as in transcripts. */
  readonly id: string;
  readonly email: string | null;
  readonly roles: readonly Role[];
}

/** An admin's own OIDC token, issued to the admin client, and the roles that its groups hold. */
export async function authenticateAdmin(
  request: Request,
  { admins, identityProviders }: Config,
  nowMs: number,
): Promise<Result<Admin, string>> {
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
  if (token === undefined) return err("no bearer token");
  const human = await verifyIdToken(token, identityProviders[admins.identityProvider]!, admins.audience, nowMs);
  if (!human.ok) return err(human.error.reason);
  const roles = (Object.keys(admins.roles) as Role[]).filter((role) =>
    admins.roles[role].some((group) => human.value.groups.includes(group)),
  );
  const { email } = human.value.claims;
  return ok({ id: human.value.id, email: typeof email === "string" ? email : null, roles });
}
