// Step 3: what the gate says no to, and how little it says. Nothing of it reaches an upstream.

import { setTimeout as sleep } from "node:timers/promises";
import { createInstanceKey } from "../../src/agent/agent-fetch.ts";
import type { Organisation } from "../local/organisation.ts";
import type { Instance } from "../local/platform.ts";
import { type Narrator, short } from "./narrator.ts";
import { differentAnswers, headerOf, type Probe, type RawAnswer, send, signed } from "./raw-request.ts";
import type { Team } from "./team.ts";

const known = "/github/user";
const paths = [known, "/github/no/such/path", "/no-such-upstream/at/all", "/"];

/** An instance whose task is over soon: its grant runs out by itself. Long enough for two segments of its transcript. */
export async function provisionShortLived(team: Team): Promise<ShortLived> {
  const endsAtMs = Math.ceil(Date.now() / 1000 + 4) * 1000;
  const task = { id: `${team.task.id}-visit`, purpose: "Look in for a moment", deadlineMs: endsAtMs };
  return { instance: await team.another(task), endsAtMs };
}

export interface ShortLived {
  readonly instance: Instance;
  readonly endsAtMs: number;
}

export async function refuseStrangers({ gate }: Organisation, team: Team, tour: Narrator): Promise<void> {
  const thief = { key: await createInstanceKey(), grant: team.triager.grant };
  await checkUnauthenticated(tour, "nothing at all", undefined, (path) =>
    Promise.resolve({ method: "GET", url: gate.origin + path, headers: {} }),
  );
  await checkUnauthenticated(tour, "a copied token, used with another key", "invalid_token", (path) =>
    signed(gate.origin, thief, "GET", path),
  );
  await checkUnauthenticated(tour, "a replayed proof", "invalid_dpop_proof", async (path) => {
    const probe = await signed(gate.origin, team.triager, "GET", path);
    await send(probe);
    return probe;
  });
}

/** Waits for the end of the short task, and tries its grant then. */
export async function refuseExpired(
  { gate }: Organisation,
  { instance: visitor, endsAtMs }: ShortLived,
  tour: Narrator,
): Promise<void> {
  await sleep(Math.max(0, endsAtMs + 100 - Date.now()));
  await checkUnauthenticated(
    tour,
    `the expired grant of ${short(visitor.id)}, whose task is over`,
    "invalid_token",
    (path) => signed(gate.origin, visitor, "GET", path),
  );
}

async function checkUnauthenticated(
  tour: Narrator,
  what: string,
  error: string | undefined,
  make: (path: string) => Promise<Probe>,
): Promise<void> {
  const answers: RawAnswer[] = [];
  for (const path of paths) answers.push(await send(await make(path)));
  const challenge = headerOf(answers[0]!, "www-authenticate") ?? "";
  tour.check(
    `${what}: 401${error === undefined ? "" : ` ${error}`}, the same to the byte on known and unknown paths`,
    {
      statuses: answers.map(({ status }) => status),
      different: differentAnswers(answers),
      scheme: challenge.split(" ")[0],
      error: /error="([^"]*)"/.exec(challenge)?.[1],
    },
    { statuses: paths.map(() => 401), different: 1, scheme: "DPoP", error },
  );
}

export async function refuseOutOfScope(
  { gate, github, slack }: Organisation,
  team: Team,
  tour: Narrator,
): Promise<void> {
  const before = github.requests().length + slack.requests().length;
  const attempts: readonly (readonly [method: string, path: string])[] = [
    ["GET", "/github/repos/acme/payroll/contents/salaries.csv"], // another repository
    ["POST", "/github/repos/acme/widgets/issues/1/comments"], // an operation that only the triager has
    ["GET", "/github/no/such/path"],
    ["POST", "/slack/api/chat.postMessage"], // an upstream that only the triager has
    ["GET", "/no-such-upstream/at/all"],
    ["GET", "/"],
  ];
  const answers: RawAnswer[] = [];
  for (const [method, path] of attempts) answers.push(await send(await signed(gate.origin, team.reader, method, path)));
  tour.check(
    "out of scope, another's upstream, unknown upstream, unknown path: one and the same neutral 404, to the byte",
    { statuses: answers.map(({ status }) => status), different: differentAnswers(answers) },
    { statuses: attempts.map(() => 404), different: 1 },
  );
  tour.check("none of these arrived anywhere", github.requests().length + slack.requests().length - before, 0);
}

const atOnce = 6; // Below the limit of calls at the same time: it is the rate that is tried here.
const enoughRefusals = 10;
const attemptsMax = 600;

export async function refuseBurst(
  { gate, github }: Organisation,
  { counter }: Team,
  limits: { readonly callsPerSecond: number; readonly burst: number },
  tour: Narrator,
): Promise<void> {
  const before = github.requests().length;
  const answers: RawAnswer[] = [];
  const startedAtMs = Date.now();
  const refused = () => answers.filter(({ status }) => status === 429);
  const caller = async () => {
    while (refused().length < enoughRefusals && answers.length < attemptsMax)
      answers.push(await send(await signed(gate.origin, counter, "GET", known)));
  };
  await Promise.all(Array.from({ length: atOnce }, caller));
  const passed = answers.filter(({ status }) => status === 200).length;
  const arrived = github.requests().length - before;
  // What came in while it went on, and one for the rounding of both clocks.
  const most = limits.burst + ((Date.now() - startedAtMs) / 1000) * limits.callsPerSecond + 1;
  tour.check(
    `a burst of ${answers.length} calls: ${passed} pass (${limits.burst} at once, ${limits.callsPerSecond} more each second), ` +
      `${refused().length} get 429 with Retry-After`,
    {
      allowed: passed >= limits.burst && passed <= most,
      arrived,
      refused: refused().length >= enoughRefusals,
      others: answers.length - passed - refused().length,
      retryAfter: [...new Set(refused().map((answer) => headerOf(answer, "retry-after")))],
    },
    { allowed: true, arrived: passed, refused: true, others: 0, retryAfter: ["1"] },
  );
}
