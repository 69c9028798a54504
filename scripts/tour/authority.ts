// Step 5: what an agent may do changes while it works: a person lets one call pass, and the human loses a group.

import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { Admin } from "../local/admin.ts";
import { slowAnswer } from "../local/model.ts";
import type { Organisation } from "../local/organisation.ts";
import { askToRenew } from "../local/platform.ts";
import { openStream } from "./kill.ts";
import { type Narrator, short } from "./narrator.ts";
import type { Team } from "./team.ts";

const chunksBeforeTheLoss = 4;
/** Not a measurement, only what would be absurd: the figure printed is the real one. */
const absurdMs = 5_000;
const pollMs = 50;

/** Of the gate's problem, or of GitHub's issue. */
const answerShape = z.object({ type: z.string().optional(), state: z.string().optional() });

export async function askAPerson(
  { gate, github }: Organisation,
  { triager }: Team,
  admin: Admin,
  tour: Narrator,
): Promise<void> {
  const before = github.requests().length;
  const arrived = () => github.requests().length - before;
  const closeIssue = async () => {
    const answer = await triager.fetch(`${gate.origin}/github/repos/acme/widgets/issues/1`, {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ state: "closed" }),
    });
    return { status: answer.status, ...answerShape.parse(await answer.json()) };
  };
  const pending = { status: 503, type: `${gate.origin}/problems/approval-pending` };

  tour.say("Grant and ceilings let the triager close issues, and a boundary has a person asked for each.");
  const asked = { ...(await closeIssue()), arrived: arrived() };
  tour.check("the triager closes issue 1: 503, approval-pending; nothing arrived", asked, { ...pending, arrived: 0 });

  const [approval] = await waiting(admin, triager.id);
  await admin.approve(approval ?? "none", "The widget has been turned");
  const passed = await closeIssue();
  const again = await closeIssue();
  tour.check(
    "Oscar approves. The same call, sent again, to the byte, passes, once: the third one has him asked anew",
    { passed: { status: passed.status, state: passed.state }, again, arrived: arrived() },
    { passed: { status: 200, state: "closed" }, again: pending, arrived: 1 },
  );
}

export async function loseAGroup(
  { gate, slowChunks }: Organisation,
  team: Team,
  admin: Admin,
  tour: Narrator,
): Promise<void> {
  const { triager } = team;
  const { human } = (await admin.list()).find(({ instance }) => instance === triager.id)!;
  const stream = openStream(gate.origin, triager);
  await stream.reached(chunksBeforeTheLoss);
  tour.say(`${short(triager.id)} streams. Ada leaves engineering: the admin API is told which groups are left, none.`);

  const receipt = await admin.narrow(human, [], "Ada has left engineering");
  const end = await stream.end;
  const cutMs = end.atMs - receipt.acceptedAtMs;
  tour.check(
    `its stream broke off after ${end.text.length} of ${slowAnswer(slowChunks).length} characters, ${cutMs} ms after Ada lost her group`,
    {
      receipt: { status: receipt.status, cut: receipt.cut, unconfirmed: receipt.unconfirmed },
      complete: end.complete,
      broken: end.broken,
      inTime: cutMs < absurdMs,
    },
    { receipt: { status: "done", cut: 1, unconfirmed: 0 }, complete: false, broken: true, inTime: true },
  );

  const next = await triager.fetch(`${gate.origin}/github/repos/acme/widgets/issues`);
  await next.body?.cancel();
  const renewal = await askToRenew(gate.origin, triager);
  tour.check(
    "nobody was killed: it renews, and what it calls is not there, 404; what waited for approval is cancelled",
    { call: next.status, renewal: renewal.status, waiting: await nothingWaits(admin, triager.id) },
    { call: 404, renewal: 200, waiting: [] },
  );
  const late = await team.another({ ...team.task, id: `${team.task.id}-late` }).catch((cause: Error) => cause.message);
  tour.check(
    "Ada's sign-in from before the loss is no good for a new agent either",
    typeof late === "string" ? /exceeds the human's entitlement/.exec(late)?.[0] : "provisioned",
    "exceeds the human's entitlement",
  );
}

/** The desk hears of a request and of its end right after the instance has put it on record. */
async function waiting(admin: Admin, instance: string): Promise<readonly string[]> {
  return until(
    () => admin.waiting(instance),
    (ids) => ids.length > 0,
  );
}

async function nothingWaits(admin: Admin, instance: string): Promise<readonly string[]> {
  return until(
    () => admin.waiting(instance),
    (ids) => ids.length === 0,
  );
}

async function until<T>(look: () => Promise<T>, is: (seen: T) => boolean): Promise<T> {
  const startedAtMs = Date.now();
  let seen = await look();
  while (!is(seen) && Date.now() < startedAtMs + absurdMs) {
    await sleep(pollMs);
    seen = await look();
  }
  return seen;
}
