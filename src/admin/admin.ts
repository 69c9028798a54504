import { Hono } from "hono";
import { z } from "zod";
import { recordUnauthenticated } from "../authority/refused.ts";
import type { Role } from "../config/define.ts";
import { type FlipAnswer, REACHES } from "../control/switch.ts";
import type { Deployment } from "../deployment.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { journalOf, rosterOf, switchboardOf } from "../objects.ts";
import { readText } from "../read-text.ts";
import { err, ok, type Result } from "../result.ts";
import type { Fields } from "../transcript/envelope.ts";
import { KEY_ID } from "../transcript/layout.ts";
import { type Admin, authenticateAdmin } from "./authenticate.ts";
import { readTranscript } from "./transcripts.ts";

/** The admin's door. Its readers operate the deployment: errors say what was wrong. Every act is in the journal before it is done. */
export const admin = new Hono<{ Bindings: { deployment: Deployment }; Variables: { admin: Admin } }>();

/** Nobody's path is longer than what a record needs in order to be recognised. */
const PATH_MAX_CHARS = 256;
const BODY_MAX_BYTES = 16_384;

const problem = (status: number, title: string, detail?: string): Response =>
  Response.json(
    { type: "about:blank", title, status, ...(detail === undefined ? {} : { detail }) },
    { status, headers: { "Content-Type": "application/problem+json", "Cache-Control": "no-store" } },
  );

admin.use(async (c, next) => {
  c.header("Cache-Control", "no-store");
  const { deployment } = c.env;
  const authenticated = await authenticateAdmin(c.req.raw, deployment.config, Date.now());
  if (!authenticated.ok) {
    await recordUnauthenticated(deployment, "admin-refused", () => ({
      door: "admin",
      path: c.req.path.slice(0, PATH_MAX_CHARS),
      reason: authenticated.error,
    }));
    const answer = problem(401, "Unauthorized");
    answer.headers.set("WWW-Authenticate", "Bearer");
    return answer;
  }
  c.set("admin", authenticated.value);
  return next();
});

/** Null: the admin holds one of the roles. A refusal is on record. */
async function requireRole(
  deployment: Deployment,
  who: Admin,
  path: string,
  roles: readonly Role[],
): Promise<Response | null> {
  if (roles.some((role) => who.roles.includes(role))) return null;
  await record(deployment, "refused", {
    door: "admin",
    path: path.slice(0, PATH_MAX_CHARS),
    by: who.id,
    reason: `needs the role ${roles.join(" or ")}`,
  });
  return problem(403, "Forbidden", `this needs the role ${roles.join(" or ")}`);
}

/** Throws where the journal can't be written: what can't be recorded is not done. */
async function record(deployment: Deployment, type: "act" | "refused" | "read", fields: Fields): Promise<void> {
  const written = await journalOf(deployment, "admin", Date.now()).append({
    type,
    fields,
    deployment: deployment.version,
  });
  if (!written) throw new Error("the journal is closed");
}

const flipBody = z.strictObject({
  reach: z.enum(REACHES),
  target: z.string().regex(KEY_ID, "an instance's id"),
  act: z.literal("kill"),
  reason: z.string().trim().min(1).max(1_000),
});

admin.post("/admin/v1/switches", async (c) => {
  const { deployment } = c.env;
  const who = c.get("admin");
  const refused = await requireRole(deployment, who, c.req.path, ["operator"]);
  if (refused !== null) return refused;
  const body = await parseBody(c.req.raw, flipBody);
  if (!body.ok) {
    await record(deployment, "refused", { door: "admin", path: c.req.path, by: who.id, reason: body.error });
    return problem(400, "Bad Request", body.error);
  }
  await record(deployment, "act", { deed: "flip", by: who.id, email: who.email, ...body.value });
  const flipped = await switchboardOf(deployment).flip({ ...body.value, by: who.id });
  if (flipped.reached === null) return c.json({ ...flipped.switch, status: "accepted" }, 202);
  return c.json(summary(flipped), flipped.status === "done" ? 201 : 202);
});

/** JSON that has one reading, of a shape. The error names the path of each mistake. */
async function parseBody<T>(request: Request, shape: z.ZodType<T>): Promise<Result<T, string>> {
  const text = await readText(request, BODY_MAX_BYTES);
  if (text === undefined) return err(`body: longer than ${BODY_MAX_BYTES} bytes, or not UTF-8`);
  const json = parseStrictJson(text);
  if (!json.ok) return err(`body: ${json.error}`);
  const parsed = shape.safeParse(json.value);
  if (parsed.success) return ok(parsed.data);
  return err(parsed.error.issues.map(({ path, message }) => `${path.join(".") || "body"}: ${message}`).join("; "));
}

/** How far a flip is. An instance that did not answer is never counted as stopped before its confirmation runs out. */
function summary({ switch: sw, status, reached, acknowledgedAtMs }: FlipAnswer) {
  const answered = reached.flatMap(({ answer }) => answer ?? []);
  return {
    ...sw,
    status,
    reached: reached.length,
    cut: answered.reduce((sum, answer) => sum + answer.cut, 0),
    unconfirmed: answered.reduce((sum, answer) => sum + answer.unconfirmed, 0),
    acknowledgedAtMs,
    unreached: reached
      .filter(({ answer }) => answer === null)
      .map(({ instance, stoppedByMs }) => ({ instance, stoppedByMs })),
  };
}

admin.get("/admin/v1/switches", async (c) => {
  const refused = await requireRole(c.env.deployment, c.get("admin"), c.req.path, ["viewer", "operator", "auditor"]);
  return refused ?? c.json({ switches: await switchboardOf(c.env.deployment).list() });
});

const LIST_MAX = 1_000;

admin.get("/admin/v1/instances", async (c) => {
  const refused = await requireRole(c.env.deployment, c.get("admin"), c.req.path, ["viewer", "operator", "auditor"]);
  return refused ?? c.json({ instances: await rosterOf(c.env.deployment).list(LIST_MAX) });
});

/** NDJSON: the exact lines, from R2 and then what has not left yet. Each read is itself on record. */
admin.get("/admin/v1/transcripts/:human/:task/:instance", async (c) => {
  const { deployment } = c.env;
  const who = c.get("admin");
  const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
  if (refused !== null) return refused;
  const { human, task, instance } = c.req.param();
  await record(deployment, "read", { by: who.id, email: who.email, human, task, instance });
  const lines = await readTranscript(deployment, { human, task, instance });
  if (lines === null) return problem(404, "Not Found", "no transcript with these ids");
  return new Response(lines, { headers: { "Content-Type": "application/x-ndjson", "Cache-Control": "no-store" } });
});

admin.notFound(() => problem(404, "Not Found"));
admin.onError((error) => {
  throw error;
});
