import { withinCeilings } from "../authority/requested-scope.ts";
import type { Deployment } from "../deployment.ts";
import type { Human } from "../identity/id-token.ts";
import { ceilingsOf } from "../instance/ceilings.ts";
import type { Mandate } from "../mandate/contract.ts";
import type { ApproveBody } from "../mandate/shape.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { parseEntries } from "../scope/entry.ts";

/**
 * Pure but for its new id: what was asked for as a mandate, or why it can't be one, said to the human who asks. Nobody
 * approves what they may not do themselves, now.
 */
export function mandateOf(
  body: ApproveBody,
  human: Human,
  { config }: Deployment,
  nowMs: number,
): Result<Mandate, string> {
  const { mandates, platforms, identityProviders, agents, grants } = config;
  if (mandates === undefined) return err("this gate takes no mandates");
  const platform = Object.hasOwn(platforms, body.platform) ? platforms[body.platform] : undefined;
  // Of another organisation's provider nobody here is a human.
  const issuer = identityProviders[mandates.identityProvider]!.issuer;
  if (platform === undefined || identityProviders[platform.identityProvider]?.issuer !== issuer)
    return err(`platform: no platform "${body.platform}" for your identity provider`);
  if (platform.agent !== body.agent || !Object.hasOwn(agents, body.agent))
    return err(`agent: ${body.platform} does not provision "${body.agent}"`);

  const notBeforeMs = body.notBeforeMs ?? nowMs;
  if (body.expiresAtMs <= nowMs) return err("expiresAtMs: it is over already (in milliseconds since 1970)");
  if (body.expiresAtMs <= notBeforeMs) return err("expiresAtMs: not later than notBeforeMs");
  if (body.expiresAtMs > nowMs + mandates.longestSeconds * 1_000)
    return err(`expiresAtMs: later than ${mandates.longestSeconds} seconds from now`);
  if (body.taskSeconds > grants.taskSeconds) return err(`taskSeconds: this gate allows ${grants.taskSeconds}`);

  const scope = parseEntries(body.authorization_details, "authorization_details");
  if (!scope.ok) return err(`${scope.error.path}: ${scope.error.message}`);
  const unverified = human.isEmailUnverified ? { emailUnverified: true as const } : {};
  const { id, emailDigest, groups } = human;
  const who = { human: id, emailDigest, groups, ...unverified, agent: body.agent, parentScope: null };
  const within = withinCeilings(scope.value, ceilingsOf(config, who));
  if (!within.ok) return err(within.error.description);

  return ok({
    id: crypto.randomUUID(),
    human: human.id,
    emailDigest: human.emailDigest,
    groups: human.groups,
    groupsAtMs: human.groupsAtMs,
    ...unverified,
    approvedAtMs: nowMs,
    agent: body.agent,
    platform: body.platform,
    scope: scope.value.map((entry) => entry.source as Json),
    purpose: body.purpose,
    schedule: body.schedule ?? null,
    notBeforeMs,
    expiresAtMs: body.expiresAtMs,
    taskSeconds: body.taskSeconds,
    limits: { calls: body.limits.calls ?? null, bytes: body.limits.bytes ?? null },
    maxUses: body.maxUses ?? null,
    perDay: body.perDay ?? null,
  });
}
