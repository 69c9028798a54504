import { z } from "zod";
import type { Limits } from "../config/define.ts";
import { unitName } from "../config/names.ts";
import type { Deployment } from "../deployment.ts";
import type { Enrolment } from "../instance/contract.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { ok, type Result } from "../result.ts";
import type { Form } from "./form.ts";
import { failed, type OAuthError } from "./oauth-error.ts";

const taskLimits = z.strictObject({
  calls: z.number().int().positive().optional(),
  bytes: z.number().int().positive().optional(),
  concurrency: z.number().int().positive().optional(),
  callsPerSecond: z.number().positive().optional(),
  units: z.record(unitName, z.number().positive()).optional(),
});

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
  if (lower?.success !== true)
    return bad("task_limits must be an object with calls, bytes, concurrency, callsPerSecond or units");
  return ok({
    // Namespaced by the platform that names it; client names hold no underscore.
    task: { id: `${client}_${id}`, purpose, deadlineMs },
    agentVersion,
    limits: lowered(agent.limits, lower.data),
  });
}

/** Each the lower of the two. A unit that the agent's limits do not bound is bounded by what is asked. */
function lowered(limits: Limits, asked: z.output<typeof taskLimits>): Limits {
  const least = (own: number, other = Number.POSITIVE_INFINITY) => Math.min(own, other);
  const units = Object.entries(asked.units ?? {}).map(([unit, amount]) => [
    unit,
    least(amount, Object.hasOwn(limits.units, unit) ? limits.units[unit] : undefined),
  ]);
  return {
    ...limits,
    calls: least(limits.calls, asked.calls),
    bytes: least(limits.bytes, asked.bytes),
    concurrency: least(limits.concurrency, asked.concurrency),
    callsPerSecond: least(limits.callsPerSecond, asked.callsPerSecond),
    units: { ...limits.units, ...Object.fromEntries(units) },
  };
}
