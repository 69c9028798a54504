// kill -9 of workerd in the middle of a kill, again and again, over streams of many instances. The switch was in the book before
// anybody heard of it: it is carried on by itself, and who was in its reach never acts again.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chosen } from "../chosen.ts";
import type { Random } from "../random.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import type { Members } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";
import {
  type Copy,
  flip,
  SWITCHES,
  serveEndless,
  settledFaults,
  startCopy,
  startStream,
  untilDone,
} from "./kill-rig.ts";

const ROUNDS = 3;
const INSTANCES = 16;
const STREAMS_EACH = 2;
/** Calls whose Worker died with the process are unconfirmed, and hinder `done` for 30 s. */
const DONE_WITHIN_MS = 60_000;

let rig: GateRig;
let copy: Copy;
beforeAll(async () => {
  rig = await startGateRig();
  copy = await startCopy(rig);
  serveEndless(rig, "/endless");
});
afterAll(async () => {
  await copy.close();
  await rig.close();
});

const SCOPE = JSON.stringify([{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }]);
const provision = async (task: string): Promise<Instance> => {
  const { key, access } = await rig.h.provision({ form: { task, authorization_details: SCOPE } });
  return { key, access, id: key.thumbprint };
};
const statusOf = async (who: Instance, target: string): Promise<number> =>
  (await rig.call(who, target).catch(() => null))?.status ?? 0;
const switchOf = async (round: number): Promise<Members | undefined> =>
  ((await rig.h.asAdmin(SWITCHES)).json["switches"] as Members[]).find(({ reason }) => reason === `round ${round}`);

interface Round {
  readonly doomed: readonly Instance[];
  readonly spared: Instance;
  /** Streams that had been cut before the crash: then the switch stands for certain. */
  readonly cutBefore: number;
  readonly isAnswered: boolean;
}

/** Streams, a kill, and a crash: when some of the streams are cut, or after a random time. */
async function crashInMidst(round: number, random: Random): Promise<Round> {
  const doomed = await Promise.all(Array.from({ length: INSTANCES }, () => provision(`doomed-${round}`)));
  const spared = await provision(`spared-${round}`);
  const targets = [...doomed, spared].flatMap((who) => Array.from({ length: STREAMS_EACH }, () => who));
  const streams = await Promise.all(
    targets.map((who, n) => startStream(rig, who, `/hostile/endless?round=${round}&n=${n}`)),
  );
  const cutNow = () => streams.filter(({ endedAtMs }) => endedAtMs > 0).length;
  let isAnswered = false;
  const task = { task: `build-platform_doomed-${round}` };
  const killing = flip(rig, "kill", "task", task, `round ${round}`).then(
    () => {
      isAnswered = true;
    },
    () => {},
  );
  // When the first of them is cut, or in any moment up to the end of it.
  if (round % 2 === 0) await Promise.race(streams.map(({ ended }) => ended));
  else await pause(random.next() * 40);
  const cutBefore = cutNow();
  const before = isAnswered;
  rig.crash();
  await Promise.all([killing, ...streams.map(({ ended }) => ended)]);
  await rig.restart({});
  return { doomed, spared, cutBefore, isAnswered: before };
}

describe("kill -9 in the middle of a kill", () => {
  it("the switch stands, is carried on by itself, and nobody in its reach acts again", async () => {
    const random = chosen();
    const rounds: Round[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const one = await crashInMidst(round, random);
      rounds.push(one);
      // The upstream's own log: who heard of the switch before the crash admits nothing after it.
      if (one.cutBefore > 0) {
        const after = await Promise.all(one.doomed.map((who) => statusOf(who, `/hostile/after?round=${round}`)));
        expect(after).toEqual(one.doomed.map(() => 401));
      }
      expect(await statusOf(one.spared, `/hostile/spared?round=${round}`)).toBe(200);
    }
    const stood: number[] = [];
    for (const [round, { doomed, spared, cutBefore, isAnswered }] of rounds.entries()) {
      const found = await switchOf(round);
      // Without an answer, and before anybody was cut, it may have died with the process.
      if (cutBefore > 0 || isAnswered) expect(found).toBeDefined();
      if (found === undefined) continue;
      stood.push(round);
      const receipt = await untilDone(rig, found["id"] as string, DONE_WITHIN_MS);
      expect(receipt.reached + receipt.idle).toBe(INSTANCES);
      const seen = rig.upstream.requests("/end").length;
      for (const who of doomed) expect(await statusOf(who, "/hostile/end")).toBe(401);
      expect(rig.upstream.requests("/end")).toHaveLength(seen);
      expect(await statusOf(spared, "/hostile/spared-end")).toBe(200);
      await expect(provision(`doomed-${round}`)).rejects.toThrow("closed by a switch");
      expect(await settledFaults(copy, receipt)).toEqual([]);
    }
    expect(stood).toEqual(expect.arrayContaining([0, 2]));
    // No round's doomed ones got through to the upstream in any later life of the gate.
    const late = rig.upstream.requests("/after").map(({ target }) => target);
    expect(late).toEqual([]);
  }, 120_000);
});
