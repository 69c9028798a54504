import { type Context, Hono } from "hono";
import { PATH_MAX_CHARS, parseBody, problem, readBody, record } from "../admin/door.ts";
import { recordUnauthenticated } from "../authority/refused.ts";
import type { Deployment } from "../deployment.ts";
import type { Human } from "../identity/id-token.ts";
import type { ApproveRefusal, MandateState } from "../mandate/contract.ts";
import { whyUnusable } from "../mandate/decide.ts";
import { approveBody, revokeBody } from "../mandate/shape.ts";
import { issueMandateToken } from "../mandate/token.ts";
import { mandateBookOf } from "../objects.ts";
import { mandateOf } from "./approve.ts";
import { authenticateHuman } from "./authenticate.ts";

interface Variables {
  human: Human;
  /** On its way since before the token was looked at. */
  body: Promise<string | undefined>;
}
type Ctx = Context<{ Bindings: { deployment: Deployment }; Variables: Variables }>;

/** The door of humans: what they approve in advance, and take back. Each sees and ends their own alone. */
export const mandates = new Hono<{ Bindings: { deployment: Deployment }; Variables: Variables }>();

mandates.use(async (c, next) => {
  c.header("Cache-Control", "no-store");
  const { deployment } = c.env;
  if (deployment.config.mandates === undefined) return problem(404, "Not Found");
  c.set("body", readBody(c.req.raw));
  const authenticated = await authenticateHuman(c.req.raw, deployment, Date.now());
  if (!authenticated.ok) {
    await recordUnauthenticated(deployment, "admin-refused", () => ({
      door: "mandates",
      path: c.req.path.slice(0, PATH_MAX_CHARS),
      reason: authenticated.error,
    }));
    const answer = problem(401, "Unauthorized");
    answer.headers.set("WWW-Authenticate", "Bearer");
    return answer;
  }
  c.set("human", authenticated.value);
  return next();
});

/** The token comes with the answer: the human hands it to the platform that it is for. */
mandates.post("/mandates/v1/mandates", async (c) => {
  const { deployment } = c.env;
  const human = c.get("human");
  const body = await parseBody(c.get("body"), approveBody);
  if (!body.ok) return refuse(c, 400, "Bad Request", body.error);
  const mandate = mandateOf(body.value, human, deployment, Date.now());
  if (!mandate.ok) return refuse(c, 400, "Bad Request", mandate.error);
  const approved = await mandateBookOf(deployment, human.id).approve(mandate.value);
  if (!approved.approved) return refuseApproval(c, approved.reason);
  c.header("Location", `/mandates/v1/mandates/${mandate.value.id}`);
  return c.json(withToken(approved.state, deployment), 201);
});

mandates.get("/mandates/v1/mandates", async (c) => {
  const states = await mandateBookOf(c.env.deployment, c.get("human").id).list();
  return c.json({ mandates: states.map(viewOf) });
});

/** With its token, anew: the one that was given first may be lost, or its key rotated. */
mandates.get("/mandates/v1/mandates/:id", async (c) => {
  const { deployment } = c.env;
  const state = await mandateBookOf(deployment, c.get("human").id).read(c.req.param("id"));
  return state === null ? problem(404, "Not Found", "no such mandate of yours") : c.json(withToken(state, deployment));
});

mandates.delete("/mandates/v1/mandates/:id", async (c) => {
  const { deployment } = c.env;
  const human = c.get("human");
  const body = await parseBody(c.get("body"), revokeBody);
  if (!body.ok) return refuse(c, 400, "Bad Request", body.error);
  const request = { by: human.id, email: null, reason: body.value.reason };
  const state = await mandateBookOf(deployment, human.id).revoke(c.req.param("id"), request);
  return state === null ? refuse(c, 404, "Not Found", "no such mandate of yours") : c.json(viewOf(state));
});

mandates.notFound(() => problem(404, "Not Found"));
mandates.onError((error) => {
  throw error;
});

function refuseApproval(c: Ctx, reason: ApproveRefusal): Promise<Response> | Response {
  switch (reason) {
    case "too-many":
      return refuse(c, 409, "Conflict", "as many of your mandates stand as this gate allows: revoke one");
    case "its human was stopped since":
      return refuse(c, 403, "Forbidden", "you were stopped after you had signed in: sign in anew");
    case "unavailable":
      return new Response(null, { status: 503, headers: { "Retry-After": "1", "Cache-Control": "no-store" } });
  }
}

/** On record, then said. */
async function refuse(c: Ctx, status: number, title: string, reason: string): Promise<Response> {
  const path = c.req.path.slice(0, PATH_MAX_CHARS);
  await record(c.env.deployment, "refused", { door: "mandates", path, by: c.get("human").id, reason });
  return problem(status, title, reason);
}

const viewOf = ({ mandate, uses, revoked }: MandateState) => ({ ...mandate, uses, revoked });

/** Null: it is over, and a token for it would be good for nothing. */
function withToken(state: MandateState, deployment: Deployment) {
  const why = whyUnusable(state, Date.now());
  const token = why === "revoked" || why === "expired" ? null : issueMandateToken(deployment, state.mandate);
  return { ...viewOf(state), token };
}
