// The guided tour of `npm start`: the way of agents through the gate, on real parts, told in six steps.

import { createAdmin } from "./local/admin.ts";
import { limits, type Organisation } from "./local/organisation.ts";
import { askAPerson, loseAGroup } from "./tour/authority.ts";
import { killInMidStream } from "./tour/kill.ts";
import { Narrator, type Print } from "./tour/narrator.ts";
import { verifyKillReceipt } from "./tour/receipt.ts";
import { provisionShortLived, refuseBurst, refuseExpired, refuseOutOfScope, refuseStrangers } from "./tour/refusals.ts";
import { forgeTranscripts } from "./tour/tamper.ts";
import { provisionTeam, type Team } from "./tour/team.ts";
import { readTranscripts } from "./tour/transcripts.ts";
import { workThroughTheGate } from "./tour/work.ts";

export interface TourEnd {
  readonly exitCode: 0 | 1;
  readonly checks: number;
  /** Undefined where the tour did not get that far. */
  readonly team: Team | undefined;
}

/** `dir` is where the copies of the bucket lie that the last step verifies and forges. */
export async function runTour(organisation: Organisation, dir: string, print: Print): Promise<TourEnd> {
  const tour = new Narrator(print);
  const { gate, identityProvider } = organisation;
  const admin = createAdmin(gate.origin, () => identityProvider.signIn("oscar", "portcullis-admin"));
  let team: Team | undefined;
  try {
    const ours = await tour.step("A platform sets three agents to work for Ada", () =>
      provisionTeam(organisation, tour),
    );
    team = ours;
    await tour.step("An agent works, with the clients it knows", () => workThroughTheGate(organisation, ours, tour));
    const visitor = await tour.step("The gate says no, and says little", async () => {
      const shortLived = await provisionShortLived(ours);
      tour.say("A fourth instance looks in for a task of a few seconds: its grant will run out by itself.");
      await refuseStrangers(organisation, ours, tour);
      await refuseOutOfScope(organisation, ours, tour);
      await refuseBurst(organisation, ours, limits, tour);
      await refuseExpired(organisation, shortLived, tour);
      return shortLived;
    });
    const receipt = await tour.step("One of three is killed in the middle of its stream", () =>
      killInMidStream(organisation, ours, admin, tour),
    );
    await tour.step("A person is asked, and Ada loses her group", async () => {
      await askAPerson(organisation, ours, admin, tour);
      await loseAGroup(organisation, ours, admin, tour);
    });
    await tour.step("The whole story is in the bucket, and can't be retold", async () => {
      const pulled = await readTranscripts(organisation, ours, visitor, admin, dir, tour);
      await verifyKillReceipt(pulled, receipt, dir, tour);
      await forgeTranscripts(pulled, dir, tour);
    });
  } catch {
    // The step has said what went wrong; what comes after would build on it.
  }
  return { exitCode: tour.exitCode, checks: tour.passed + tour.failed, team };
}
