// kill -9 keeps the page cache, so it can't show that anybody waited for the disk. Here every fsync of the objects takes its time,
// and what was not synced is lost with the process, as with a machine's power. Needs Linux and a C compiler.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket } from "../../scripts/local/verify-folder.ts";
import { Random } from "../random.ts";
import { NO_FAULTS } from "../soak/bucket-faults.ts";
import { checkBooks } from "../soak/checks.ts";
import { markOf } from "../soak/content.ts";
import { Load } from "../soak/load.ts";
import { aheadOfDisk, compiler, SlowDisk, untilDead } from "../soak/slow-fsync.ts";
import { startUpstream, type Upstream } from "../soak/upstream.ts";
import { type GateRig, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";

const FSYNC_MS = 120;
/** Half of it may go by with the power cut, and an answer must have come after it. */
const LOAD_SECONDS = 10;

const tool = compiler();
let folder: string;
let disk: SlowDisk;
let upstream: Upstream;
let rig: GateRig;

beforeAll(async () => {
  if (tool === undefined) return;
  folder = await mkdtemp(join(tmpdir(), "portcullis-fsync-"));
  const stateDir = join(folder, "state");
  await mkdir(stateDir);
  upstream = await startUpstream();
  disk = new SlowDisk(tool, stateDir, folder, FSYNC_MS);
  const bindings = { SOAK_WITNESS: upstream.baseUrl, SOAK_FAULTS: JSON.stringify(NO_FAULTS) };
  rig = await startGateRig(
    {},
    { flushAfterMs: 500 },
    { stateDir, baseUrl: upstream.baseUrl, around: { entry: "test/soak/entry.ts", bindings } },
  );
});
afterAll(async () => {
  if (tool === undefined) return;
  await rig.close();
  await upstream.close();
  disk.end();
  await rm(folder, { recursive: true, force: true });
});

describe(`a disk whose fsync takes ${FSYNC_MS} ms${tool === undefined ? " (NOT RUN: no C compiler here)" : ""}`, () => {
  it.skipIf(tool === undefined)(
    "no request gets ahead of its record's fsync, no answer of its own, and a power cut in between loses neither",
    async () => {
      const endsAtMs = Date.now() + LOAD_SECONDS * 1000;
      const load = new Load(rig, new Random(1), {
        agents: 2,
        callers: 1,
        taskSeconds: [LOAD_SECONDS, LOAD_SECONDS],
        endsAtMs,
        largestBytes: 1_200_000,
      });
      const running = load.run();
      let unsynced: string[] = [];
      // Between a write and the return of its fsync, with some calls through already. On a busy machine a kill may come late.
      for (let tries = 0; disk.setBack === 0 && tries < 5; tries++) {
        while (disk.unsynced().length === 0 || load.attempts.length < 5) {
          if (Date.now() > endsAtMs) throw new Error(`${load.attempts.length} calls, and none between write and fsync`);
          await pause(2);
        }
        await untilDead(rig.crash());
        unsynced = disk.unsynced();
        disk.cutPower();
        await rig.restart({});
      }
      expect(disk.setBack).toBeGreaterThan(0);
      await running;

      const last = Math.max(...load.agents.map(({ deadlineMs }) => deadlineMs));
      await pause(Math.max(0, last - Date.now()));
      const copy = join(folder, "copy");
      for (let tries = 0; tries < 20; tries++) {
        await pause(1_000);
        await pullBucket(await rig.bucket(), copy);
        if (checkBooks(copy, { ...load, arrivals: upstream.arrivals, puts: upstream.puts }).problems.lost.length === 0)
          break;
      }
      const { problems, counted } = checkBooks(copy, { ...load, arrivals: upstream.arrivals, puts: upstream.puts });
      expect(problems).toEqual({ lost: [], duplicated: [], altered: [] });
      expect(counted.recorded).toBeGreaterThan(3);

      const order = aheadOfDisk(disk.synced(), upstream.arrivals, load.attempts);
      expect(order.ahead).toEqual([]);
      expect(order.seen).toBeGreaterThan(3);
      expect(order.answersSeen).toBeGreaterThan(0);
      // What was written and not synced is gone, so it must not have acted.
      const atUpstream = new Set(upstream.arrivals.map(({ call }) => markOf(call)));
      expect(unsynced.filter((mark) => atUpstream.has(mark))).toEqual([]);
    },
    90_000,
  );
});
