import * as z from "zod";
import type { Config } from "../config/define.ts";
import { groupsThatCount } from "../config/entitlements.ts";
import { type AdminContext, type AdminHono, parseBody, refuse, requireRole } from "./door.ts";
import { flipAs, humanName, keyOfHuman, reason } from "./switches.ts";

/** As in an ID token. */
const GROUPS_MAX = 500;

export const narrowBody = z.strictObject({
  /** Those that the human still has, of those that the configuration names. */
  groups: z.array(z.string().min(1).max(1_000)).max(GROUPS_MAX),
  reason,
});

export function humanRoutes(admin: AdminHono): void {
  admin.post("/admin/v1/humans/:human/groups", narrow);
}

/** The human has no other groups any more: instances that were enrolled before lose what those allowed, now. */
async function narrow(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ["operator"]);
  if (mayAct !== null) return mayAct;
  const named = humanName.safeParse(c.req.param("human"));
  if (!named.success)
    return refuse(deployment, who, c.req.path, 400, "Bad Request", "path: a human's id, or e-mail address");
  const body = await parseBody(c.get("body"), narrowBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const unknown = unknownGroup(body.value.groups, deployment.config);
  if (unknown !== null) return refuse(deployment, who, c.req.path, 400, "Bad Request", unknown);
  return flipAs(c, {
    reach: "human",
    target: { human: keyOfHuman(named.data) },
    act: "narrow",
    reason: body.value.reason,
    untilMs: null,
    groups: groupsThatCount(deployment.config.entitlements, body.value.groups),
  });
}

/** What the configuration does not name entitles to nothing, so it was misspelt: a group that was meant to stay would be lost. */
function unknownGroup(groups: readonly string[], { entitlements }: Config): string | null {
  const at = groups.findIndex((group) => !Object.hasOwn(entitlements.groups, group));
  return at === -1 ? null : `groups.${at}: no group "${groups[at]}" under entitlements.groups`;
}
