import { createHash, timingSafeEqual } from "node:crypto";
import type { Role } from "../config/define.ts";
import type { Deployment } from "../deployment.ts";
import { verifyIdToken } from "../identity/id-token.ts";
import { err, ok, type Result } from "../result.ts";

/** `break-glass` is held by a key, never by a group: it kills, and does nothing else. */
export type AdminRole = Role | "break-glass";

export interface Admin {
  /** A human's id, as in transcripts; `break-glass:<name>` for a key. */
  readonly id: string;
  readonly email: string | null;
  /** Null where there is none, or the provider says that it has not verified it: who chose it themselves is told by it from nobody. */
  readonly emailDigest: string | null;
  readonly roles: readonly AdminRole[];
  /** Of the identity provider; a key has none. */
  readonly groups: readonly string[];
}

/** Tells a key from a token before either is looked at. */
const BREAK_GLASS = /^pbg_[A-Za-z0-9_-]{43,128}$/;

/** An admin's own OIDC token, issued to the admin client, and the roles that its groups hold; or a break-glass key. */
export async function authenticateAdmin(
  request: Request,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<Admin, string>> {
  const { admins, identityProviders } = deployment.config;
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
  if (token === undefined) return err("no bearer token");
  if (BREAK_GLASS.test(token)) return breakGlass(token, deployment);
  const human = await verifyIdToken(token, identityProviders[admins.identityProvider]!, admins.audience, nowMs);
  if (!human.ok) return err(human.error.reason);
  const { email, iat } = human.value.claims;
  if (typeof iat !== "number" || nowMs >= (iat + admins.tokenMaxAgeSeconds) * 1_000)
    return err("the token is older than admins.tokenMaxAgeSeconds");
  const roles = (Object.keys(admins.roles) as Role[]).filter((role) =>
    admins.roles[role].some((group) => human.value.groups.includes(group)),
  );
  const { id, groups, isEmailUnverified } = human.value;
  const emailDigest = isEmailUnverified ? null : human.value.emailDigest;
  return ok({ id, email: typeof email === "string" ? email : null, emailDigest, roles, groups });
}

/** Only the digest of a key is known here. Every key is compared, and none sooner than another. */
function breakGlass(key: string, { config, env }: Deployment): Result<Admin, string> {
  const digest = createHash("sha256").update(key).digest();
  const held = Object.entries(config.admins.breakGlass).filter(([, secret]) =>
    timingSafeEqual(digest, Buffer.from(env[secret] as string, "hex")),
  );
  const [name] = held[0] ?? [];
  if (name === undefined) return err("a break-glass key that is not known");
  return ok({ id: `break-glass:${name}`, email: null, emailDigest: null, roles: ["break-glass"], groups: [] });
}
