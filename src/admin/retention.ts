import * as z from "zod";
import { retentionOf } from "../objects.ts";
import type { HeldSubject, HoldState } from "../retention/contract.ts";
import { ERASURE_REASON_MAX_CHARS } from "../transcript/erasure.ts";
import { KEY_ID } from "../transcript/layout.ts";
import type { AdminRole } from "./authenticate.ts";
import { type AdminContext, type AdminHono, parseBody, parseQuery, problem, refuse, requireRole } from "./door.ts";

const id = z.string().regex(KEY_ID, "an id: at most 64 letters, digits, - and _");
const reason = z.string().trim().min(1).max(ERASURE_REASON_MAX_CHARS);

/** One of the three. */
export const holdBody = z
  .strictObject({ human: id.optional(), task: id.optional(), everything: z.literal(true).optional(), reason })
  .refine(
    ({ human, task, everything }) => [human, task, everything].filter((one) => one !== undefined).length === 1,
    "exactly one of human, task and everything",
  );
export const releaseBody = z.strictObject({ reason });
export const eraseBody = z.strictObject({
  human: id.describe("Its id, as in transcripts"),
  task: id.optional().describe("Only of this task"),
  reason,
});
export const holdsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).default(100),
  /** The id of a hold: those before it. */
  before: z.uuid().optional(),
});

/**
 * Who may erase can't release a hold, and who may hold can't erase: two offices, of two people where their groups are
 * kept apart. A hold is quickly placed by one; to end it takes two, since what it kept can be gone a moment later.
 */
const HOLDERS: readonly AdminRole[] = ["auditor"];
const ERASERS: readonly AdminRole[] = ["operator"];
const LOOKERS: readonly AdminRole[] = ["operator", "auditor"];

const IDEMPOTENCY_KEY_MAX_CHARS = 255;
const USED_KEY = "the Idempotency-Key was used for another erasure";

export function retentionRoutes(admin: AdminHono): void {
  admin.post("/admin/v1/holds", hold);
  admin.get("/admin/v1/holds", listHolds);
  admin.delete("/admin/v1/holds/:id", release);
  admin.post("/admin/v1/erasures", erase);
  admin.get("/admin/v1/erasures/:id", readErasure);
}

async function hold(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, HOLDERS);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), holdBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const { human, task, reason } = body.value;
  const subject: HeldSubject =
    human !== undefined
      ? { kind: "human", id: human }
      : task !== undefined
        ? { kind: "task", id: task }
        : { kind: "everything" };
  const held = await retentionOf(deployment).hold({ subject, reason, by: who.id, email: who.email });
  return c.json(held, 201);
}

async function listHolds(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, LOOKERS);
  if (refused !== null) return refused;
  const query = parseQuery(c.req.query(), holdsQuery);
  if (!query.ok) return problem(400, "Bad Request", query.error);
  const { before = null, limit } = query.value;
  const holds = await retentionOf(deployment).holds(before, limit);
  return c.json({ holds, next: holds.length === limit ? (holds.at(-1)?.id ?? null) : null });
}

async function release(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, HOLDERS);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), releaseBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const { reason } = body.value;
  const released = await retentionOf(deployment).release(c.req.param("id")!, { by: who.id, email: who.email, reason });
  switch (released.kind) {
    case "released":
      return c.json(released.hold);
    case "second-person":
      return c.json({ ...released.hold, awaiting: "a second auditor, within an hour" }, 202);
    case "released-already":
      return refuse(deployment, who, c.req.path, 409, "Conflict", "this hold is released already");
    case "unknown":
      return refuse(deployment, who, c.req.path, 404, "Not Found", "no such hold");
  }
}

async function erase(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ERASERS);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), eraseBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const idempotencyKey = c.req.header("Idempotency-Key") ?? null;
  if (idempotencyKey !== null && (idempotencyKey === "" || idempotencyKey.length > IDEMPOTENCY_KEY_MAX_CHARS))
    return refuse(deployment, who, c.req.path, 400, "Bad Request", "Idempotency-Key: 1 to 255 characters");
  const { human, task = null, reason } = body.value;
  const request = { human, task, reason, by: who.id, email: who.email, idempotencyKey };
  const answer = await retentionOf(deployment).erase(request);
  switch (answer.kind) {
    case "held":
      return refuse(deployment, who, c.req.path, 409, "Conflict", heldReason(answer.hold));
    case "key-used":
      return refuse(deployment, who, c.req.path, 422, "Unprocessable Content", USED_KEY);
    case "accepted":
      c.header("Location", `/admin/v1/erasures/${answer.erasure.id}`);
      return c.json(answer.erasure, answer.isRepeated ? 200 : 202);
  }
}

const heldReason = ({ id, subject }: HoldState): string =>
  `hold ${id} keeps ${subject.kind === "everything" ? "everything" : `${subject.kind} ${subject.id}`}`;

async function readErasure(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, LOOKERS);
  if (refused !== null) return refused;
  const erasure = await retentionOf(deployment).erasure(c.req.param("id")!);
  return erasure === null ? problem(404, "Not Found", "no such erasure") : c.json(erasure);
}
