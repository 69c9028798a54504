// One soak: the gate in workerd on a disk, agents that call, an upstream that keeps its own book, and everything that can go wrong.

import { appendFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CopiedBucket, pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { Random } from "../random.ts";
import { type GateRig, startGateRig } from "../system/gate-rig.ts";
import { type BucketFaults, NO_FAULTS } from "./bucket-faults.ts";
import { BucketWatch } from "./bucket-watch.ts";
import { checkBooks } from "./checks.ts";
import { Events } from "./events.ts";
import { Load } from "./load.ts";
import { aheadOfDisk, compiler, SlowDisk, untilDead } from "./slow-fsync.ts";
import { startUpstream } from "./upstream.ts";

export interface SoakOptions {
  readonly seconds: number;
  readonly seed: number;
  /** 0: the disk is as it is. */
  readonly slowFsyncMs: number;
  /** A put that hangs holds up its transcript for the 30 s that the product waits: too long for a short run. */
  readonly hangs: boolean;
  readonly largestBytes: number;
  readonly agents: number;
  readonly say: (line: string) => void;
}

/** The last line of a run. */
export type SoakReport = Readonly<{ ok: boolean; problems: readonly string[]; [figure: string]: unknown }>;

const BOUNDS = { firstByteTimeoutMs: 3_000, idleTimeoutMs: 3_000, totalTimeoutMs: 20_000 };
const FLUSH_AFTER_MS = 400;
const FAULTS: BucketFaults = {
  ...NO_FAULTS,
  failBefore: 0.08,
  failAfter: 0.08,
  slow: 0.15,
  slowMs: 1_500,
  getFails: 0.1,
  listFails: 0.1,
};
const HANGS = 0.005;
/** After the last deadline: retries of failed flushes, and a put that hung. */
const END_WITHIN_MS = 60_000;
const LOOK_EVERY_MS = 1_000;
const SHOWN = 20;

export async function soak(options: SoakOptions): Promise<SoakReport> {
  const folder = await mkdtemp(join(tmpdir(), "portcullis-soak-"));
  const stateDir = join(folder, "state");
  await mkdir(stateDir);
  const random = new Random(options.seed);
  const upstream = await startUpstream();
  const tool = options.slowFsyncMs > 0 ? compiler() : undefined;
  const disk = tool === undefined ? undefined : new SlowDisk(tool, stateDir, folder, options.slowFsyncMs);
  const faults = options.hangs ? { ...FAULTS, hang: HANGS } : FAULTS;
  const bindings = { SOAK_WITNESS: upstream.baseUrl, SOAK_FAULTS: JSON.stringify(faults) };
  const onLog = (line: string) => appendFileSync(join(folder, "workerd.log"), `${new Date().toISOString()} ${line}\n`);
  const rig = await startGateRig(
    BOUNDS,
    { flushAfterMs: FLUSH_AFTER_MS, grantSeconds: 60 },
    { stateDir, baseUrl: upstream.baseUrl, around: { entry: "test/soak/entry.ts", bindings, onLog } },
  );
  let isKept = true;
  try {
    const endsAtMs = Date.now() + options.seconds * 1000;
    const longest = Math.max(5, Math.min(40, Math.floor(options.seconds / 2)));
    const load = new Load(rig, random.fork(), {
      agents: options.agents,
      callers: 3,
      taskSeconds: [Math.min(8, longest), longest],
      endsAtMs,
      largestBytes: options.largestBytes,
    });
    const watch = new BucketWatch(rig);
    const events = new Events(rig, load, random.fork(), {
      endsAtMs,
      everyMs: options.seconds < 60 ? 1_200 : 3_000,
      faults,
      bounds: BOUNDS,
      afterKill: async (pids) => {
        await untilDead(pids);
        disk?.cutPower();
      },
    });
    const watching = watch.run();
    const telling = setInterval(() => options.say(progress(load, events, endsAtMs)), 15_000);
    await Promise.all([load.run(), events.run()]);
    clearInterval(telling);
    options.say("waiting for the transcripts to end");
    const copy = join(folder, "copy");
    const { verified, pulled } = await untilEnded(rig, watch, copy);
    watch.stop();
    await watching;

    const { problems, counted } = checkBooks(copy, { ...load, arrivals: upstream.arrivals, puts: upstream.puts });
    const order = disk === undefined ? undefined : aheadOfDisk(disk.synced(), upstream.arrivals, load.attempts);
    const transcripts = verified.transcripts.filter(({ partition }) => partition.startsWith("human="));
    const known = new Set(transcripts.map(({ partition }) => partition.slice(partition.lastIndexOf("=") + 1)));
    const unverifiable = [...verified.findings, ...verified.transcripts.flatMap(({ findings }) => findings)].map(
      ({ place, problem }) => `${place}: ${problem}`,
    );
    const unended = [
      ...transcripts.filter(({ status }) => status === "open").map(({ partition }) => `${partition}: did not end`),
      ...load.agents.filter(({ id }) => !known.has(id)).map(({ id }) => `${id}: provisioned, and no transcript`),
    ];
    const duplicated = [...problems.duplicated, ...watch.changed];
    const replayed = events.counts.replaysAccepted === 0 ? [] : ["a proof was accepted twice"];
    const all = [...problems.lost, ...duplicated, ...problems.altered, ...unverifiable, ...unended, ...replayed];
    const idle = load.attempts.length === 0 || counted.whole === 0 ? ["nothing was called"] : [];
    const wrong = [...all, ...(order?.ahead ?? []), ...idle];
    isKept = wrong.length > 0;
    const report = {
      minutes: Math.round((options.seconds / 60) * 100) / 100,
      seed: options.seed,
      calls: load.attempts.length,
      reachedUpstream: upstream.arrivals.length,
      recorded: counted.recorded,
      answeredInFull: counted.whole,
      answeredInPart: counted.partial,
      outcomes: counted.outcomes,
      recordedBytes: counted.recordedBytes,
      instances: known.size,
      renewals: load.renewals,
      naps: load.naps,
      ...events.counts,
      puts: upstream.puts.length,
      objects: pulled,
      slowFsync: slowFsyncSaid(options.slowFsyncMs, disk, order),
      lost: problems.lost.length,
      duplicated: duplicated.length,
      altered: problems.altered.length,
      unverifiable: unverifiable.length,
      unended: unended.length,
      problems: wrong.slice(0, SHOWN),
      ...(isKept ? { folder } : {}),
      ok: wrong.length === 0,
    };
    if (isKept) await keepBooks(folder, load, upstream, wrong, verified);
    return report;
  } finally {
    await rig.close();
    await upstream.close();
    disk?.end();
    if (!isKept) await rm(folder, { recursive: true, force: true });
  }
}

function slowFsyncSaid(
  ms: number,
  disk: SlowDisk | undefined,
  order: ReturnType<typeof aheadOfDisk> | undefined,
): unknown {
  if (ms === 0) return "not asked for";
  if (disk === undefined || order === undefined) return "could not: it needs Linux and a C compiler (cc, gcc or clang)";
  const { ahead, seen, answersSeen } = order;
  const { fsyncs } = disk.synced();
  return {
    ms,
    fsyncs,
    requestsHeldToTheirs: seen,
    answersHeldToTheirs: answersSeen,
    ahead: ahead.length,
    filesSetBack: disk.setBack,
  };
}

/** What is in the copy is not fetched again: the watch sees to it that it stays the same. */
const onceOnly = (bucket: CopiedBucket, copy: string): CopiedBucket => ({
  list: (options) => bucket.list(options),
  get: async (key) => {
    const there = await readFile(join(copy, key)).catch(() => null);
    return there === null ? bucket.get(key) : { arrayBuffer: async () => new Uint8Array(there).buffer };
  },
});

/** Pulls and verifies, until every transcript has its sealed end or the time is over. */
async function untilEnded(rig: GateRig, watch: BucketWatch, copy: string) {
  const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
  if (!keys.ok) throw new Error(keys.error);
  const endMs = Date.now() + END_WITHIN_MS;
  for (let objects = -1; ; ) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    await watch.look();
    const isOver = Date.now() > endMs;
    // As long as something comes, it is too early to look.
    if (watch.objects !== objects && !isOver) {
      objects = watch.objects;
      continue;
    }
    const pulled = await pullBucket(onceOnly(await rig.bucket(), copy), copy);
    const verified = await verifyFolder(copy, { keys: keys.value, issuer: rig.origin, nowMs: Date.now() });
    const isOpen = verified.transcripts.some(
      ({ partition, status }) => partition.startsWith("human=") && status === "open",
    );
    if (!isOpen || isOver) return { verified, pulled };
    objects = -1;
  }
}

async function keepBooks(
  folder: string,
  load: Load,
  upstream: { arrivals: readonly object[]; puts: readonly object[] },
  wrong: readonly string[],
  verified: VerifyReport,
) {
  const books = {
    problems: wrong,
    attempts: load.attempts,
    arrivals: upstream.arrivals.map((arrival) => ({ ...arrival, hash: undefined })),
    puts: upstream.puts,
    verified,
  };
  await writeFile(join(folder, "books.json"), JSON.stringify(books, null, 1));
}

function progress(load: Load, events: Events, endsAtMs: number): string {
  const { crashes, restarts, aborts, outages, r2Faults } = events.counts;
  const left = Math.max(0, Math.round((endsAtMs - Date.now()) / 1000));
  return `${load.attempts.length} calls, ${crashes} crashes, ${restarts} restarts, ${aborts} resets, ${outages} outages, ${r2Faults} failed puts and gets; ${left} s left`;
}
