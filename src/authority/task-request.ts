import * as z from "zod";
import type { Limits } from "../config/define.ts";
import { unitName } from "../config/names.ts";
import type { Deployment } from "../deployment.ts";
import type { Enrolment } from "../instance/contract.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { MAX_AMOUNT } from "../metering/amounts.ts";
import { ok, type Result } from "../result.ts";
import type { Form } from "./form.ts";
import { failed, type OAuthError } from "./oauth-error.ts";

const whole = z.number().int().positive().optional();
/** As shares of it are cut (`carve`). Of less, `Retry-After` would come to be no number of seconds. */
const SLOWEST = 0.000_001;
/** Each is said in every answer's `RateLimit`. */
const UNITS_MAX = 64;
/** Each as `limits` of an agent has it; asked for, it only ever lowers. */
const taskLimits = z.strictObject({
  calls: whole,
  bytes: whole,
  concurrency: whole,
  burst: whole,
  callsPerSecond: z.number().min(SLOWEST).optional(),
  units: z
    .record(unitName, z.number().positive().max(MAX_AMOUNT))
    .refine((units) => Object.keys(units).length <= UNITS_MAX)
    .optional(),
});
type TaskLimits = z.output<typeof taskLimits>;

export type TaskRequest = Pick<Enrolment, "task" | "agentVersion" | "limits">;

/** The parameters of the task: `task`, `purpose`, `deadline` (NumericDate), `agent_version`, and optionally lower `task_limits`. */
export function parseTask(
  form: Form,
  { client, agent: agentName }: Pick<Enrolment, "client" | "agent">,
  { config }: Deployment,
  nowMs: number,
): Result<TaskRequest, OAuthError> {
  const bad = (description: string) => failed("invalid_request", description);
  const id = form.get("task");
  if (id === undefined || !/^[A-Za-z0-9_-]{1,40}$/.test(id)) return bad("task must be 1 to 40 letters, digits, - or _");
  const purpose = form.get("purpose");
  if (purpose === undefined || purpose.trim() === "" || purpose.length > 1_000)
    return bad("purpose must be 1 to 1000 characters");
  const deadline = form.get("deadline") ?? "";
  if (!/^\d{1,11}$/.test(deadline)) return bad("deadline must be a NumericDate in whole seconds");
  const deadlineMs = Number(deadline) * 1000;
  if (deadlineMs <= nowMs) return bad("deadline is in the past");
  if (deadlineMs > nowMs + config.grants.taskSeconds * 1000) return bad("deadline is later than this gate allows");
  const agentVersion = form.get("agent_version") ?? "";
  const agent = config.agents[agentName]!;
  if (!Object.hasOwn(agent.versions, agentVersion)) return bad("agent_version is not registered for this agent");
  const asked = form.get("task_limits");
  const json = asked === undefined ? ok({}) : parseStrictJson(asked);
  const lower = json.ok ? taskLimits.safeParse(json.value) : undefined;
  if (lower?.success !== true) return bad("task_limits must be an object of limits, each lower than without");
  return ok({
    // Namespaced by the platform that names it; client names hold no underscore.
    task: { id: `${client}_${id}`, purpose, deadlineMs },
    agentVersion,
    limits: lowered(agent.limits, lower.data),
  });
}

const NUMBERS = ["calls", "bytes", "concurrency", "burst", "callsPerSecond"] as const;

function lowered(limits: Limits, { units = {}, ...lower }: TaskLimits): Limits {
  const numbers = NUMBERS.map((name) => [name, Math.min(limits[name], lower[name] ?? Number.POSITIVE_INFINITY)]);
  const named = Object.entries(units).map(([name, limit]): [string, number] => [
    name,
    Object.hasOwn(limits.units, name) ? Math.min(limits.units[name]!, limit) : limit,
  ]);
  return { ...limits, ...Object.fromEntries(numbers), units: { ...limits.units, ...Object.fromEntries(named) } };
}
