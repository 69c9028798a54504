import * as z from "zod";
import type { Config } from "../config/define.ts";
import type { FlipRequest, FlipState, OpenRequest } from "../control/contract.ts";
import { type Receipt, receiptOf, signReceipt } from "../control/receipt.ts";
import { ACTS, REACHES, type Reach, type Target, type TargetMember } from "../control/switch.ts";
import type { Deployment } from "../deployment.ts";
import { emailDigest } from "../identity/email-digest.ts";
import { switchboardOf } from "../objects.ts";
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
import { followSwitch, USED_KEY, wantsEvents } from "./switch-events.ts";

const id = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "an id: at most 64 letters, digits, - and _");
const email = z.email().max(254);
/** Whom a switch means: by id, or by the address that the identity provider gave. */
export const humanName = z.union([id, email], "a human's id, or e-mail address");
const name = z.string().regex(/^[A-Za-z0-9._+-]{1,64}$/, "a name, as in the configuration");

/** The year 2100: beyond it no alarm can be set, and no reader's date be printed. Who means never leaves it out. */
const UNTIL_MAX_MS = 4_102_444_800_000;

/** What each member of a target looks like. A human may be named by the address that the identity provider gave. */
const target = z.strictObject({
  instance: id.optional(),
  task: id.optional(),
  human: humanName.optional(),
  agent: name.optional(),
  agentVersion: name.optional(),
  upstream: name.optional(),
  mandate: id.optional(),
});
export const reason = z.string().trim().min(1).max(1_000);

export const flipBody = z
  .strictObject({
    act: z.enum([...ACTS, "resume"]),
    reach: z.enum(Object.keys(REACHES) as [Reach, ...Reach[]]),
    /** Exactly the members that the reach names; `{}` for everything. */
    target,
    reason,
    /** When it opens by itself, in milliseconds since 1970. */
    untilMs: z.number().int().positive().max(UNTIL_MAX_MS).optional(),
  })
  .superRefine(({ act, reach, target, untilMs }, ctx) => {
    const wanted: readonly TargetMember[] = REACHES[reach];
    const given = Object.keys(target).filter((member) => target[member as TargetMember] !== undefined);
    if (wanted.length !== given.length || wanted.some((member) => !given.includes(member)))
      ctx.addIssue({
        code: "custom",
        path: ["target"],
        message: wanted.length === 0 ? `{} for ${reach}` : `exactly ${wanted.join(" and ")} for ${reach}`,
      });
    if (act === "resume" && untilMs !== undefined)
      ctx.addIssue({ code: "custom", path: ["untilMs"], message: "not with resume" });
  });

export const liftBody = z.strictObject({ reason });

export const switchesQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).default(100),
  /** The id of a switch: those before it. */
  before: z.uuid().optional(),
});

const IDEMPOTENCY_KEY_MAX_CHARS = 255;

export function switchRoutes(admin: AdminHono): void {
  admin.post("/admin/v1/switches", flip);
  admin.get("/admin/v1/switches", list);
  admin.get("/admin/v1/switches/:id", read);
  admin.post("/admin/v1/switches/:id/lift", lift);
}

/** Closes a switch, or resumes what was paused. 201: nobody in reach can act any more. 202: it stands, and somebody may. */
async function flip(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ["operator", "break-glass"]);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), flipBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const { act, reach, reason, untilMs = null } = body.value;
  const unknown = unknownName(body.value.target, deployment.config);
  if (unknown !== null) return refuse(deployment, who, c.req.path, 400, "Bad Request", unknown);
  const selector = { reach, target: byDigest(body.value.target) };
  const by = { by: who.id, email: who.email };
  if (act !== "kill") {
    const mayMore = await requireRole(deployment, who, c.req.path, ["operator"]);
    if (mayMore !== null) return mayMore;
  }
  if (act === "resume") return resume(c, selector, { ...by, reason });
  if (untilMs !== null && untilMs <= Date.now())
    return refuse(deployment, who, c.req.path, 400, "Bad Request", "untilMs: it is over already");
  return flipAs(c, { ...selector, act, reason, untilMs });
}

/** What an admin flips, and the answer to it: the receipt, or its progress as events. */
export async function flipAs(
  c: AdminContext,
  asked: Pick<FlipRequest, "reach" | "target" | "act" | "reason" | "untilMs" | "groups">,
): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const idempotencyKey = c.req.header("Idempotency-Key") ?? null;
  if (idempotencyKey !== null && (idempotencyKey === "" || idempotencyKey.length > IDEMPOTENCY_KEY_MAX_CHARS))
    return refuse(deployment, who, c.req.path, 400, "Bad Request", "Idempotency-Key: 1 to 255 characters");
  const by = { by: who.id, email: who.email };
  const request: FlipRequest = { id: crypto.randomUUID(), ...asked, ...by, cause: null, idempotencyKey };
  const flipping = switchboardOf(deployment).flip(request);
  if (wantsEvents(c.req.raw)) {
    // On record before it is said, as without a stream, and whoever still listens.
    const recorded = flipping.then(async (answer) => {
      if (!answer.flipped) await refuse(deployment, who, c.req.path, 422, "Unprocessable Content", USED_KEY);
      return answer;
    });
    c.executionCtx.waitUntil(recorded.catch(() => {}));
    return followSwitch(deployment, request.id, recorded);
  }
  const flipped = await flipping;
  if (!flipped.flipped) return refuse(deployment, who, c.req.path, 422, "Unprocessable Content", USED_KEY);
  const { state, isRepeated } = flipped;
  c.header("Location", `/admin/v1/switches/${state.switch.id}`);
  return c.json(signed(deployment, state), isRepeated ? 200 : state.status === "done" ? 201 : 202);
}

/** What the configuration does not name can do nothing, so it was misspelt: a kill of nobody must not look like one. */
function unknownName({ agent, upstream }: Target, { agents, upstreams }: Config): string | null {
  if (agent !== undefined && !Object.hasOwn(agents, agent))
    return `target.agent: no agent "${agent}" in the configuration`;
  if (upstream !== undefined && !Object.hasOwn(upstreams, upstream))
    return `target.upstream: no upstream "${upstream}" in the configuration`;
  return null;
}

/** An address itself has no place in switches and records. */
const byDigest = (target: Target): Target =>
  target.human === undefined ? target : { ...target, human: keyOfHuman(target.human) };

export const keyOfHuman = (named: string): string => (named.includes("@") ? emailDigest(named) : named);

async function resume(
  c: AdminContext,
  selector: { readonly reach: Reach; readonly target: Target },
  request: OpenRequest,
): Promise<Response> {
  const { deployment } = c.env;
  const resumed = await switchboardOf(deployment).resume(selector, request);
  if (resumed.length === 0)
    return refuse(
      deployment,
      c.get("admin"),
      c.req.path,
      404,
      "Not Found",
      "no pause of exactly this reach and target is closed",
    );
  return c.json({ switches: resumed.map(summary) });
}

/** Lets newcomers in again. What a kill has stopped stays so. */
async function lift(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const who = c.get("admin");
  const mayAct = await requireRole(deployment, who, c.req.path, ["operator"]);
  if (mayAct !== null) return mayAct;
  const body = await parseBody(c.get("body"), liftBody);
  if (!body.ok) return refuse(deployment, who, c.req.path, 400, "Bad Request", body.error);
  const { reason } = body.value;
  const lifted = await switchboardOf(deployment).lift(c.req.param("id")!, { by: who.id, email: who.email, reason });
  switch (lifted.kind) {
    case "opened":
      return c.json(summary(lifted.state));
    case "second-operator":
      return c.json({ ...summary(lifted.state), awaiting: "a second operator, within an hour" }, 202);
    case "not-lifted":
      return refuse(
        deployment,
        who,
        c.req.path,
        409,
        "Conflict",
        "a narrowing is not lifted: whoever signs in anew is not in its reach, and it is over when no older ID token is taken",
      );
    case "open-already":
      return refuse(deployment, who, c.req.path, 409, "Conflict", "this switch is open already");
    case "unknown":
      return refuse(deployment, who, c.req.path, 404, "Not Found", "no such switch");
  }
}

async function list(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
  if (refused !== null) return refused;
  const query = parseQuery(c.req.query(), switchesQuery);
  if (!query.ok) return problem(400, "Bad Request", query.error);
  const { before = null, limit } = query.value;
  const states = await switchboardOf(deployment).list(before, limit);
  return c.json({
    switches: states.map(summary),
    next: states.length === limit ? (states.at(-1)?.switch.id ?? null) : null,
  });
}

async function read(c: AdminContext): Promise<Response> {
  const { deployment } = c.env;
  const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
  if (refused !== null) return refused;
  const state = await switchboardOf(deployment).read(c.req.param("id")!);
  if (state === null) return problem(404, "Not Found", "no such switch");
  if (wantsEvents(c.req.raw)) return followSwitch(deployment, state.switch.id, null);
  return c.json(signed(deployment, state));
}

/** The receipt, and the same signed. */
export function signed(deployment: Deployment, state: FlipState): Receipt & { readonly jws: string } {
  const receipt = receiptOf(state, deployment.config.origin);
  return { ...receipt, jws: signReceipt(deployment.sealKeys, receipt) };
}

const summary = ({ switch: sw, status, opened, liftAskedBy }: FlipState) => ({
  ...sw,
  status,
  opened,
  liftAskedBy,
});
