import * as z from "zod";
import type { MandateState } from "../mandate/contract.ts";
import { revokeBody } from "../mandate/shape.ts";
import { mandateBookOf, mandateIndexOf } from "../objects.ts";
import {
  type AdminContext,
  type AdminHono,
  parseBody,
  parseQuery,
  problem,
  READERS,
  refuse,
  requireRole,
} from "./door.ts";

export const mandatesQuery = z.strictObject({
  /** Each is asked of its human's own book. */
  limit: z.coerce.number().int().min(1).max(100).default(100),
  /** The id of a mandate: those before it. */
  before: z.uuid().optional(),
});

/** What humans approved in advance. An admin approves nothing, and can end each. */
export function mandateRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/mandates", list);
  admin.delete("/admin/v1/mandates/:id", revoke);
}

async function list(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
  if (refused !== null) return refused;
  const query = parseQuery(c.req.query(), mandatesQuery);
  if (!query.ok) return problem(400, "Bad Request", query.error);
  const { before = null, limit } = query.value;
  const indexed = await mandateIndexOf(deployment).list(before, limit);
  if (indexed === null) return problem(400, "Bad Request", "before: no such mandate, or one that is over for long");
  const states = await Promise.all(indexed.map(({ id, human }) => mandateBookOf(deployment, human).read(id)));
  return c.json({
    // An approval that broke off, or a mandate that is long over, is in the index alone.
    mandates: states.filter((state) => state !== null).map(viewOf),
    next: indexed.length === limit ? (indexed.at(-1)?.id ?? null) : null,
  });
}

async function revoke(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ["operator"]);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), revokeBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const id = c.req.param("id")!;
  const human = await mandateIndexOf(deployment).find(id);
  const request = { by: who.id, email: who.email, reason: body.value.reason };
  const state = human === null ? null : await mandateBookOf(deployment, human).revoke(id, request);
  return state === null
    ? refuse(deployment, who, c.req.path, 404, "Not Found", "no such mandate")
    : c.json(viewOf(state));
}

const viewOf = ({ mandate, uses, revoked }: MandateState) => ({ ...mandate, uses, revoked });
