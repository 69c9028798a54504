import type { Config, Limits } from "../config/define.ts";
import type { Deployment } from "../deployment.ts";
import type { Grant } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import type { Asked as AskedLimits } from "../instance/carve.ts";
import type { EnrolAnswer, Enrolment } from "../instance/contract.ts";
import { type DelegateAnswer, type DelegateRefusal, endOfChildrenMs } from "../instance/family.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import { coveredBy } from "../scope/decide.ts";
import { readEntries } from "../scope/entry.ts";
import type { Form } from "./form.ts";
import { failed, type OAuthError, oauthError } from "./oauth-error.ts";

/** What a parent has to say while its child is provisioned. */
export interface Parent {
  /** What the child asked, completed by what it has of its parent: the task, and by default its end. */
  readonly form: Form;
  /** Before the child is enrolled: the parent lives, its bounds hold, and the child's limits are out of what it had left. */
  reserve(child: Enrolment): Promise<Result<Reserved, OAuthError>>;
  /** After that, whichever way it went. No grant is signed unless this is ok: the parent still lives, and knows its child. */
  settle(child: Enrolment, answer: EnrolAnswer): Promise<Result<null, OAuthError>>;
}

export interface Reserved {
  readonly limits: Limits;
  readonly tokens: number;
}

interface Terms {
  readonly parent: Enrolment;
  readonly grant: Grant;
  readonly proof: Proof;
  readonly form: Form;
  readonly deployment: Deployment;
}

const NO_LONGER = failed("invalid_request", "subject_token: no longer valid");
const TRY_AGAIN = failed("temporarily_unavailable", "try again with a new key");

export function parentOf({ parent, grant, proof, form, deployment }: Terms): Result<Parent, OAuthError> {
  const id = parent.task.id.slice(parent.client.length + 1);
  const task = form.get("task") ?? id;
  if (task !== id) return failed("invalid_request", "task: not the parent's");
  const endsAtMs = endOfChildrenMs(parent, grant, deployment.config);
  const defaults: Readonly<Record<string, string>> = { task, deadline: String(Math.floor(endsAtMs / 1000)) };
  const completed: Form = {
    get: (name) => form.get(name) ?? (Object.hasOwn(defaults, name) ? defaults[name] : undefined),
    all: (name) => form.all(name),
  };
  // Anew for each call: the stub of an object that was reset stays broken.
  const object = () => instanceOf(deployment, parent.instance);
  return ok({
    form: completed,
    async reserve(child) {
      const above = withinAgentsAbove(child, deployment.config);
      if (!above.ok) return above;
      const answer: DelegateAnswer = await object()
        .delegate({
          proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
          grant: { id: grant.jti, expiresAtMs: grant.expiresAtMs },
          child: {
            instance: child.instance,
            agent: child.agent,
            agentVersion: child.agentVersion,
            grant: child.grant,
            purpose: child.task.purpose,
            deadlineMs: child.task.deadlineMs,
            scope: child.scope,
          },
          ceiling: child.limits,
          asked: askedOf(form),
          deployment: deployment.version,
        })
        // It may have reserved all the same: the alarm over there finds that nobody came, and takes it back.
        .catch(() => ({ delegated: false, refusal: { kind: "unavailable" } }) as const);
      return answer.delegated ? ok(answer) : err(refusalOf(answer.refusal));
    },
    async settle({ instance, grant: first }, answer) {
      // Dying before this leaves a child without a grant, and without a parent that knows it: it is ended from over there.
      const stands =
        answer.enrolled &&
        (await object()
          .confirmChild(instance, first)
          .catch(() => null));
      if (stands === true) return ok(null);
      await object()
        .disown(instance, first)
        .catch(() => {});
      if (stands === null || (!answer.enrolled && answer.reason === "unavailable")) return TRY_AGAIN;
      // Kill or pause, of which of the two: no agent is told.
      return answer.enrolled || answer.reason === "switched" ? NO_LONGER : ok(null);
    },
  });
}

/** Every agent that stands above bounds it, as its ceiling is now: who may do something no more can't have it done. */
function withinAgentsAbove({ scope, chain }: Enrolment, { agents }: Config): Result<null, OAuthError> {
  const entries = readEntries(scope, "");
  if (!entries.ok) return failed("invalid_authorization_details", entries.error.message);
  for (const { agent } of chain.slice(0, -1)) {
    const ceiling = Object.hasOwn(agents, agent) ? agents[agent]!.ceiling : [];
    const beyond = entries.value.findIndex((entry) => !coveredBy(ceiling, entry));
    if (beyond >= 0)
      return failed(
        "invalid_authorization_details",
        `authorization_details[${beyond}] exceeds the ceiling of the parent's agent`,
      );
  }
  return ok(null);
}

/** What `task_limits` names; `parseTask` has found it to be in order. */
function askedOf(form: Form): AskedLimits {
  const text = form.get("task_limits");
  const json = text === undefined ? undefined : parseStrictJson(text);
  return json?.ok === true ? (json.value as AskedLimits) : {};
}

function refusalOf(refusal: DelegateRefusal): OAuthError {
  const bad = (description: string) => oauthError("invalid_request", description);
  switch (refusal.kind) {
    case "dead":
      return NO_LONGER.error;
    case "unavailable":
      return TRY_AGAIN.error;
    case "replay":
      return bad("subject_token_proof: it was used before");
    case "known-key":
      return bad("this key is known already: every sub-agent needs a key of its own");
    case "agent":
      return bad("agent: not one that the parent may provision");
    case "depth":
      return bad("delegation: as deep as it may go");
    case "breadth":
      return bad("delegation: the parent has as many living children as it may");
    case "total":
      return bad("delegation: the parent has had as many children as it may");
    case "deadline":
      return bad("deadline: later than the parent's own end");
    case "limit":
      return bad(`task_limits: ${refusal.limit} exceeds what the parent has left`);
  }
}
