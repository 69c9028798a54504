import * as z from "zod";
import type { Member } from "../control/contract.ts";
import { instanceOf, rosterOf, switchboardOf } from "../objects.ts";
import { KEY_ID, segmentKey } from "../transcript/layout.ts";
import { parseObjectKey } from "../transcript/verify-layout.ts";
import { type AdminHono, parseQuery, problem, READERS, requireRole } from "./door.ts";

const LIST_MAX = 1_000;

export const instancesQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(LIST_MAX).default(LIST_MAX),
  /** `next` of the page before. */
  after: z
    .string()
    .regex(/^\d{1,3}\.[A-Za-z0-9_-]{0,64}$/, "the `next` of another page")
    .optional(),
});

const withParent = (member: Member) => ({ ...member, parent: member.ancestors.at(-1) ?? null });

/** Who is enrolled: roster shard by roster shard, and in each by instance. */
export function instanceRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/instances", async (c) => {
    const { deployment } = c.env;
    const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
    if (refused !== null) return refused;
    const query = parseQuery(c.req.query(), instancesQuery);
    if (!query.ok) return problem(400, "Bad Request", query.error);
    const { limit, after = "0." } = query.value;
    const [first, instance] = after.split(".") as [string, string];
    const instances: Member[] = [];
    for (const shard of await switchboardOf(deployment).shards()) {
      if (shard < Number(first)) continue;
      const page = await rosterOf(deployment, shard).list(
        shard === Number(first) ? instance : "",
        limit - instances.length,
      );
      instances.push(...page);
      if (instances.length >= limit)
        return c.json({ instances: instances.map(withParent), next: `${shard}.${instances.at(-1)!.instance}` });
    }
    return c.json({ instances: instances.map(withParent), next: null });
  });

  /** Where its transcript lies, also when it is on no list any more: its own object says it. */
  admin.get("/admin/v1/instances/:instance", async (c) => {
    const { deployment } = c.env;
    const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
    if (refused !== null) return refused;
    const { instance } = c.req.param();
    const found = KEY_ID.test(instance) ? await instanceOf(deployment, instance).read(0, 0) : null;
    const { human, task } = parseObjectKey(segmentKey(found?.partition ?? "", 0))?.partition.ids ?? {};
    if (human === undefined || task === undefined) return problem(404, "Not Found", "no instance with this id");
    return c.json({ instance, human, task });
  });
}
