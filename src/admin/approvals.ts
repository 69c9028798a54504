import * as z from "zod";
import type { Approval, Verdict } from "../approval/contract.ts";
import { approvalDeskOf } from "../objects.ts";
import type { AdminRole } from "./authenticate.ts";
import { readBody } from "./bodies.ts";
import {
  type AdminContext,
  type AdminHono,
  parseBody,
  parseQuery,
  problem,
  record,
  refuse,
  requireRole,
} from "./door.ts";

export const approvalsQuery = z.strictObject({
  /** `open`: those that can be decided. */
  state: z.enum(["open", "all"]).default("open"),
  limit: z.coerce.number().int().min(1).max(500).default(100),
  /** The id of a request: those before it. */
  before: z.uuid().optional(),
});
export const decideBody = z.strictObject({ reason: z.string().trim().min(1).max(1_000) });

/** A call is more than a switch: who may look at it decides about it, or reads transcripts anyway. */
const LOOKERS: readonly AdminRole[] = ["approver", "auditor"];
const UNKNOWN = "no such request for approval";

export function approvalRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/approvals", list);
  admin.get("/admin/v1/approvals/:id", read);
  admin.get("/admin/v1/approvals/:id/body", readApprovalBody);
  admin.post("/admin/v1/approvals/:id/approve", (c) => decide(c, "approved"));
  admin.post("/admin/v1/approvals/:id/deny", (c) => decide(c, "denied"));
}

async function list(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const refused = await requireRole(deployment, who, c.req.path, LOOKERS);
  if (refused !== null) return refused;
  const query = parseQuery(c.req.query(), approvalsQuery);
  if (!query.ok) return problem(400, "Bad Request", query.error);
  const { state, before = null, limit } = query.value;
  const found = await approvalDeskOf(deployment).list(state, before, limit);
  const [newest, oldest] = [found[0], found.at(-1)];
  // Whose calls, and where to, with their queries: that is a read of what is on record. One line for the whole page.
  if (newest !== undefined && oldest !== undefined) {
    const shown = { approvals: state, shown: found.length, newest: newest.id, oldest: oldest.id };
    await record(deployment, "read", { by: who.id, email: who.email, ...shown });
  }
  return c.json({
    approvals: found,
    next: found.length === limit ? (found.at(-1)?.id ?? null) : null,
  });
}

/** On record before it is given. Null: there is none. */
async function find(c: AdminContext, part: "request" | null): Promise<Approval | null> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const id = c.req.param("id")!;
  const found = z.uuid().safeParse(id).success ? await approvalDeskOf(deployment).read(id) : null;
  if (found === null) return null;
  const { human, task, instance, seq } = found;
  const of = { human, task, instance, bodyOf: seq };
  await record(deployment, "read", { by: who.id, email: who.email, approval: id, ...of, part });
  return found;
}

async function read(c: AdminContext): Promise<Response> {
  const refused = await requireRole(c.env.deployment, c.get("admin"), c.req.path, LOOKERS);
  if (refused !== null) return refused;
  const found = await find(c, null);
  return found === null ? problem(404, "Not Found", UNKNOWN) : c.json(found);
}

/** Who approves must see what: the bytes as they are on record, by the rules of any recorded body. */
async function readApprovalBody(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, LOOKERS);
  if (refused !== null) return refused;
  const found = await find(c, "request");
  if (found === null) return problem(404, "Not Found", UNKNOWN);
  return readBody(deployment, found, found.seq, "request");
}

async function decide(c: AdminContext, verdict: Verdict): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ["approver"]);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), decideBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const id = c.req.param("id")!;
  if (!z.uuid().safeParse(id).success) return refuse(deployment, who, c.req.path, 404, "Not Found", UNKNOWN);
  const answer = await approvalDeskOf(deployment).decide(id, {
    verdict,
    by: who.id,
    email: who.email,
    emailDigest: who.emailDigest,
    groups: who.groups,
    reason: body.value.reason,
  });
  switch (answer.kind) {
    case "decided":
      return c.json(answer.approval);
    case "forbidden":
      return refuse(deployment, who, c.req.path, 403, "Forbidden", answer.reason);
    case "over":
      return refuse(deployment, who, c.req.path, 409, "Conflict", overReason(answer.approval));
    case "unknown":
      return refuse(deployment, who, c.req.path, 404, "Not Found", UNKNOWN);
    case "unavailable":
      return new Response(null, { status: 503, headers: { "Retry-After": "1", "Cache-Control": "no-store" } });
  }
}

function overReason({ state, decision, cause }: Approval): string {
  if (decision !== null && state !== "expired" && state !== "cancelled")
    return `${decision.by} has decided: ${decision.verdict}${state === "used" ? ", and it is used" : ""}`;
  return `it is ${state}: ${cause ?? "it is over"}`;
}
