// Step 1: a platform provisions three instances for a task of Ada, and is refused what Ada herself may not do.

import { decodeJwt, decodeProtectedHeader } from "jose";
import type { ScopeEntry } from "../../src/config/layers.ts";
import { humans } from "../local/humans.ts";
import { modelName } from "../local/model.ts";
import type { Organisation } from "../local/organisation.ts";
import {
  askForGrant,
  type Instance,
  type ProvisionOptions,
  provision,
  readRefusal,
  type Task,
} from "../local/platform.ts";
import { type Narrator, short } from "./narrator.ts";

const repository = (repo: string, operations: readonly string[]): ScopeEntry => ({
  type: "http",
  upstream: "github",
  operations,
  where: { owner: ["acme"], repo: [repo] },
});
const READ = ["GET /repos/{owner}/{repo}/contents/{+path}", "GET /repos/{owner}/{repo}/issues"];
const COMMENT = ["POST /repos/{owner}/{repo}/issues/{issue_number}/comments"];
const CLOSE = ["PATCH /repos/{owner}/{repo}/issues/{issue_number}"];
const WHO_AM_I: ScopeEntry = { type: "http", upstream: "github", operations: ["GET /user"] };
const CHAT: ScopeEntry = {
  type: "http",
  upstream: "model",
  operations: ["POST /v1/chat/completions"],
  where: { "body./model": [modelName] },
};
const POST: ScopeEntry = { type: "http", upstream: "slack", operations: ["POST /api/chat.postMessage"] };

/** The instances of the tour. What each may do differs, so that what one is refused another has just done. */
export interface Team {
  readonly task: Task;
  /** Reads, comments, posts and chats; closes issues, where a person lets it. */
  readonly triager: Instance;
  /** Reads and chats; the one that will be killed. */
  readonly reader: Instance;
  /** Asks who it is, and chats. */
  readonly counter: Instance;
  /** Provisions one more for Ada, with the counter's scope. */
  another(task: Task): Promise<Instance>;
}

export async function provisionTeam({ gate, secrets, identityProvider }: Organisation, tour: Narrator): Promise<Team> {
  const task: Task = {
    id: `triage-${Date.now().toString(36)}`,
    purpose: "Read the squeaking widgets' issues and answer the first",
    deadlineMs: Date.now() + 3_600_000,
  };
  const base: Omit<ProvisionOptions, "scope"> = {
    gate: gate.origin,
    clientKey: secrets.platformClientKey,
    idToken: await identityProvider.signIn("ada", "build-platform-app"),
    task,
  };
  tour.say(`Ada signs in to her build platform and sets three agents to one task: ${task.purpose.toLowerCase()}.`);
  const triager = await provision({
    ...base,
    scope: [repository("widgets", [...READ, ...COMMENT, ...CLOSE]), WHO_AM_I, CHAT, POST],
  });
  const reader = await provision({ ...base, scope: [repository("widgets", READ), CHAT] });
  const counter = await provision({ ...base, scope: [WHO_AM_I, CHAT] });
  const team = [triager, reader, counter];
  tour.check(
    `three instances, each bound to a key of its own: ${team.map(({ id }) => short(id)).join(", ")}`,
    { keys: team.map(boundTo), different: new Set(team.map(({ id }) => id)).size },
    { keys: team.map(({ id }) => id), different: 3 },
  );
  const { sub, email, name } = humans.ada;
  tour.check(
    "what the agents hold states their scope and says nothing about who sent them",
    [sub, email, name, task.id].filter((fact) => team.some((instance) => claimsOf(instance).includes(fact))),
    [],
  );

  const payroll = await askForGrant({ ...base, scope: [repository("widgets", READ), repository("payroll", READ)] });
  tour.check(
    `repository payroll, which Ada has no access to, is refused: "${readRefusal(payroll).error_description}"`,
    { status: payroll.status, ...readRefusal(payroll) },
    beyondEntitlement(1),
  );
  const forGrace = await askForGrant({
    ...base,
    idToken: await identityProvider.signIn("grace", "build-platform-app"),
    scope: [repository("widgets", READ)],
  });
  tour.check(
    `Grace from support asks for Ada's repository and is refused: "${readRefusal(forGrace).error_description}"`,
    { status: forGrace.status, ...readRefusal(forGrace) },
    beyondEntitlement(0),
  );
  const another = (other: Task) => provision({ ...base, task: other, scope: [WHO_AM_I, CHAT] });
  return { task, triager, reader, counter, another };
}

const beyondEntitlement = (entry: number) => ({
  status: 400,
  error: "invalid_authorization_details",
  error_description: `authorization_details[${entry}]: '${READ[0]}' exceeds the human's entitlement`,
});

function boundTo({ grant }: Instance): unknown {
  const isGrant = decodeProtectedHeader(grant.access_token).typ === "at+jwt";
  const { cnf } = decodeJwt<{ cnf?: { jkt?: string } }>(grant.access_token);
  return isGrant ? cnf?.jkt : "not a grant";
}

const claimsOf = ({ grant }: Instance): string => JSON.stringify(decodeJwt(grant.access_token));
