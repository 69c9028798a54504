import { Hono } from "hono";
import { recordUnauthenticated } from "../authority/refused.ts";
import { KEY_ID } from "../transcript/layout.ts";
import { approvalRoutes } from "./approvals.ts";
import { authenticateAdmin } from "./authenticate.ts";
import { bodyRoutes } from "./bodies.ts";
import { type AdminHono, problem, readBody, record, recordedPath, requireRole } from "./door.ts";
import { humanRoutes } from "./humans.ts";
import { instanceRoutes } from "./instances.ts";
import { mandateRoutes } from "./mandates.ts";
import { objectRoutes } from "./objects.ts";
import { openApiRoute } from "./openapi.ts";
import { quotaRoutes } from "./quotas.ts";
import { retentionRoutes } from "./retention.ts";
import { segmentRoutes } from "./segments.ts";
import { switchRoutes } from "./switches.ts";
import { readTranscript } from "./transcripts.ts";

/** The admin's door. Every act is on record: what is flipped or lifted in the switchboard's own book, and then in the journal. */
export const admin: AdminHono = new Hono();

admin.use(async (c, next) => {
  c.header("Cache-Control", "no-store");
  const { deployment } = c.env;
  c.set("body", readBody(c.req.raw));
  const authenticated = await authenticateAdmin(c.req.raw, deployment, Date.now());
  if (!authenticated.ok) {
    await recordUnauthenticated(deployment, "admin-refused", () => ({
      door: "admin",
      path: recordedPath(c.req.path),
      reason: authenticated.error,
    }));
    const answer = problem(401, "Unauthorized");
    answer.headers.set("WWW-Authenticate", "Bearer");
    return answer;
  }
  c.set("admin", authenticated.value);
  return next();
});

switchRoutes(admin);
humanRoutes(admin);
instanceRoutes(admin);
quotaRoutes(admin);
segmentRoutes(admin);
objectRoutes(admin);
retentionRoutes(admin);
mandateRoutes(admin);
approvalRoutes(admin);
bodyRoutes(admin);
openApiRoute(admin);

/** NDJSON: the exact lines, from R2 and then what has not left yet. Each read is itself on record. */
admin.get("/admin/v1/transcripts/:human/:task/:instance", async (c) => {
  const { deployment } = c.env;
  const who = c.get("admin");
  const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
  if (refused !== null) return refused;
  const { human, task, instance } = c.req.param();
  // What is no id leads to nothing, and could be as long as an address: it is not put on record.
  if (![human, task, instance].every((id) => KEY_ID.test(id)))
    return problem(404, "Not Found", "no transcript with these ids");
  await record(deployment, "read", { by: who.id, email: who.email, human, task, instance });
  const lines = await readTranscript(deployment, { human, task, instance });
  if (lines === null) return problem(404, "Not Found", "no transcript with these ids");
  return new Response(lines, { headers: { "Content-Type": "application/x-ndjson", "Cache-Control": "no-store" } });
});

admin.notFound(() => problem(404, "Not Found"));
admin.onError((error) => {
  throw error;
});
