import { readFileSync } from "node:fs";
import { z } from "zod";
import { reasonOf, usageFault } from "./ending.ts";

const file = z.strictObject({
  agent: z.string().min(1),
  agentVersion: z.string().min(1),
  purpose: z.string().min(1),
  authorization_details: z.array(z.looseObject({ type: z.string() })).min(1),
  /** NumericDate, or how long from now; neither: as long as the parent's task. */
  deadline: z.int().positive().optional(),
  seconds: z.int().positive().optional(),
  /** What is not named is a share of what the parent has left. */
  task_limits: z.looseObject({}).optional(),
});

/** What a sub-agent is to be, as the token endpoint takes it. Throws an `Ending` that names the member. */
export function readSubAgentFile(path: string): Readonly<Record<string, string>> {
  const fault = (problem: string) => usageFault(`--sub-agent ${path}: ${problem}`);
  const parsed = file.safeParse(parseJson(path, fault));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw fault(`${issue?.path.join(".") || "the file"}: ${issue?.message}`);
  }
  const { data } = parsed;
  if (data.deadline !== undefined && data.seconds !== undefined) throw fault("give one of deadline and seconds");
  const deadline = data.seconds === undefined ? data.deadline : Math.floor(Date.now() / 1000) + data.seconds;
  return {
    agent: data.agent,
    agent_version: data.agentVersion,
    purpose: data.purpose,
    authorization_details: JSON.stringify(data.authorization_details),
    ...(deadline === undefined ? {} : { deadline: String(deadline) }),
    ...(data.task_limits === undefined ? {} : { task_limits: JSON.stringify(data.task_limits) }),
  };
}

function parseJson(path: string, fault: (problem: string) => Error): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw fault(reasonOf(cause));
  }
  try {
    return JSON.parse(text);
  } catch {
    throw fault("not JSON");
  }
}
