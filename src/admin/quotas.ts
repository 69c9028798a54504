import { quotaOf } from "../objects.ts";
import { KEY_ID } from "../transcript/layout.ts";
import { type AdminHono, problem, READERS, requireRole } from "./door.ts";

/** What of a shared limit is spent, and what is given out. Who holds it stands in no answer but the instances' own records. */
export function quotaRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/quotas/:quota/:key", async (c) => {
    const { deployment } = c.env;
    const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
    if (refused !== null) return refused;
    const { quota, key } = c.req.param();
    // Of a pair, two ids with a dot. What is no key leads to no object.
    const parts = key.split(".");
    const config = Object.hasOwn(deployment.config.quotas, quota) ? deployment.config.quotas[quota] : undefined;
    if (config === undefined) return problem(404, "Not Found", `no quota "${quota}" in the configuration`);
    const isKey = parts.length === config.per.length && parts.every((id) => KEY_ID.test(id));
    const found = isKey ? await quotaOf(deployment, `${quota}.${key}`).read() : null;
    const unknown = `no such key: the quota is per ${config.per.join(" and ")}, by id as in records`;
    return found === null ? problem(404, "Not Found", unknown) : c.json(found);
  });
}
