import { tmpdir } from "node:os";
import type { Receipt } from "../src/control/receipt.ts";
import { type BenchAdmin, kill, startAdmin } from "./admin.ts";
import { nowMs, type OpenStream, openStream, type StreamEnd, startStreams } from "./streams.ts";
import {
  type BenchInstance,
  cpuMs,
  enrol,
  MEMORY,
  percentile,
  round,
  type StartedGate,
  startGate,
  workerdVersion,
} from "./worker.ts";

/**
 * How long a kill takes: from the moment the switchboard accepted it (and from when it was asked for) to the moment the
 * client's connection is gone. All on one machine, so on one clock.
 */
const SETTINGS = {
  everyMs: 250,
  single: 30,
  wide: { streams: 500, rounds: 5 },
  one: { streams: 100, rounds: 5 },
  many: { instances: 2_500, streams: 100, rounds: 1 },
  coldAfterMs: 15_000,
  enrolled: { members: 100_000, active: 100, rounds: 3 },
  shards: 4,
};
const PATH = "/saas/v0/appX1/Orders";
const ENROL_AT_ONCE = 32;
const KNOWN_AFTER_MS = 6_000;

interface Measured {
  /** From accepted, and from asked, until the last connection was gone. */
  readonly acceptedToEndMs: number;
  readonly askedToEndMs: number;
  readonly acceptedToLastByteMs: number;
  readonly acceptedToAcknowledgedMs: number;
  readonly askedToReceiptMs: number;
  /** Of workerd, until the receipt was here; in ticks of 10 ms. */
  readonly cpuMs: number;
}

/** @param only the one scenario to run */
export async function benchKill(only?: string): Promise<void> {
  const upstream = await startStreams(SETTINGS.everyMs);
  const admin = await startAdmin();
  const settings = {
    upstream: `http://127.0.0.1:${upstream.port}`,
    issuer: admin.issuer,
    confirmationMs: 600_000,
    // Flushes come later: thousands of transcripts that were begun at the same time would all be on their way at once.
    flushAfterMs: 600_000,
    shards: SETTINGS.shards,
  };
  const withGate = async <T>(stateIn: string, work: (gate: StartedGate) => Promise<T>): Promise<T> => {
    const gate = await startGate(settings, stateIn);
    try {
      return await work(gate);
    } finally {
      await gate.close();
    }
  };
  try {
    console.log(`workerd ${workerdVersion()}, Node ${process.version}; ${JSON.stringify(SETTINGS)}`);
    const figures: Record<string, unknown> = { bench: "kill" };
    for (const [name, { stateIn, run }] of Object.entries(SCENARIOS))
      if (only === undefined || only === name) figures[name] = await withGate(stateIn, (gate) => run(gate, admin));
    if (only === undefined || only === "confirmations") figures["confirmations"] = await confirmations(settings);
    Object.assign(figures, { workerd: workerdVersion(), settings: SETTINGS });
    console.log(JSON.stringify(figures));
  } finally {
    admin.close();
    await upstream.close();
  }
}

interface Scenario {
  readonly stateIn: string;
  run(gate: StartedGate, admin: BenchAdmin): Promise<object>;
}

/** On disk, but for two of the many: making 2,500 databases on a disk takes longer than the runtime keeps idle objects, so there some are put away. */
const SCENARIOS: Readonly<Record<string, Scenario>> = {
  oneStream: { stateIn: tmpdir(), run: oneStream },
  oneStreamInMemory: { stateIn: MEMORY, run: oneStream },
  wide: { stateIn: tmpdir(), run: wide },
  oneInstance: { stateIn: tmpdir(), run: oneInstance },
  many: { stateIn: MEMORY, run: many },
  manyCold: { stateIn: MEMORY, run: manyCold },
  manyYoung: { stateIn: MEMORY, run: manyYoung },
  manyOnDisk: { stateIn: tmpdir(), run: many },
  enrolled: { stateIn: tmpdir(), run: enrolled },
};

async function oneStream(gate: StartedGate, admin: BenchAdmin) {
  const rounds: Measured[] = [];
  for (let i = 0; i < SETTINGS.single + 3; i++) {
    const instance = await enrol(gate.origin);
    const stream = await openStream(gate.port, instance.request(PATH));
    await pause(20);
    rounds.push(await measure(gate, admin, "instance", { instance: instance.id }, [stream], 1));
  }
  // The first ones warm the code.
  return report("one stream", rounds.slice(3));
}

async function wide(gate: StartedGate, admin: BenchAdmin) {
  const rounds: Measured[] = [];
  for (let i = 0; i < SETTINGS.wide.rounds; i++) {
    const instances = await enrolMany(gate, SETTINGS.wide.streams, `wide-${i}`);
    const streams = await openAll(gate, instances);
    rounds.push(await measure(gate, admin, "task", { task: `wide-${i}` }, streams, instances.length));
  }
  return report(`${SETTINGS.wide.streams} instances with a stream each, one switch`, rounds);
}

async function oneInstance(gate: StartedGate, admin: BenchAdmin) {
  const rounds: Measured[] = [];
  for (let i = 0; i < SETTINGS.one.rounds; i++) {
    const instance = await enrol(gate.origin);
    const streams = await openAll(gate, Array<BenchInstance>(SETTINGS.one.streams).fill(instance));
    rounds.push(await measure(gate, admin, "instance", { instance: instance.id }, streams, 1));
  }
  return report(`one instance with ${SETTINGS.one.streams} streams`, rounds);
}

/** All of them hold a running confirmation, so all get a push. */
function many(gate: StartedGate, admin: BenchAdmin) {
  return killMany(gate, admin, { idleMs: 0, areYoung: false });
}

/** The same after all but those that stream were idle for so long that the runtime has put their objects away. */
function manyCold(gate: StartedGate, admin: BenchAdmin) {
  return killMany(gate, admin, { idleMs: SETTINGS.coldAfterMs, areYoung: false });
}

/** The same, and the streams began half a second before. */
function manyYoung(gate: StartedGate, admin: BenchAdmin) {
  return killMany(gate, admin, { idleMs: SETTINGS.coldAfterMs, areYoung: true });
}

interface Many {
  readonly idleMs: number;
  readonly areYoung: boolean;
}

async function killMany(gate: StartedGate, admin: BenchAdmin, { idleMs, areYoung }: Many) {
  const { instances: count, streams: streaming, rounds: times } = SETTINGS.many;
  const rounds: Measured[] = [];
  for (let i = 0; i < times; i++) {
    const task = `many-${i}`;
    const streamers = await enrolMany(gate, streaming, task);
    const streams = areYoung ? [] : await openAll(gate, streamers);
    const openedAtMs = Date.now();
    for (let at = 0; at < count - streaming; at += 100) {
      const asked = { method: "POST", body: JSON.stringify({ task, count: 100 }) };
      const { enrolled } = (await (await fetch(`${gate.origin}/bench-enrol`, asked)).json()) as { enrolled: boolean };
      if (!enrolled) throw new Error("not enrolled");
    }
    // Streams that the roster knows of: they have run for longer than the first beat of a lease.
    await pause(Math.max(500 + idleMs, openedAtMs + KNOWN_AFTER_MS - Date.now()));
    if (areYoung) streams.push(...(await openAll(gate, streamers)));
    rounds.push(await measure(gate, admin, "task", { task }, streams, count));
  }
  const state = idleMs === 0 ? "with a confirmation" : "with a confirmation, put away";
  const since = areYoung ? "for half a second" : "for some seconds";
  return report(`${count} instances ${state}, ${streaming} of them streaming ${since}`, rounds);
}

/** Rows of the roster: who holds no confirmation gets no push. */
async function enrolled(gate: StartedGate, admin: BenchAdmin) {
  const { members, active, rounds: times } = SETTINGS.enrolled;
  const rounds: Measured[] = [];
  let instances = await enrolMany(gate, active, "enrolled-0");
  const filled = await fetch(`${gate.origin}/bench-enrol`, { method: "POST", body: JSON.stringify({ fill: members }) });
  const { bytes } = (await filled.json()) as { bytes: number };
  for (let i = 0; i < times; i++) {
    if (i > 0) instances = await enrolMany(gate, active, `enrolled-${i}`);
    const streams = await openAll(gate, instances);
    rounds.push(await measure(gate, admin, "agent", { agent: "bench-bot" }, streams, active));
    // Newcomers are let in again for the next round: who was killed stays so.
    if (i < times - 1) await liftAll(gate, admin);
  }
  return { ...report(`${members} enrolled, ${active} of them active and streaming`, rounds), rosterBytes: bytes };
}

/** What it costs a busy instance to keep its confirmation: CPU of renewing once a second, as of the usual twice a minute. */
async function confirmations(settings: object) {
  const perMinute = 2;
  const often = await startGate({ ...settings, confirmationMs: 200 }, tmpdir());
  const seldom = await startGate(settings, tmpdir());
  const used: number[] = [];
  try {
    for (const gate of [often, seldom]) {
      const instances = await enrolMany(gate, 50, "busy");
      const streams = await openAll(gate, instances);
      // A stream's beat asks whether the confirmation holds; calls ask as well.
      const before = cpuMs(gate.pid);
      for (let i = 0; i < 20; i++) {
        await Promise.all(instances.map((instance) => briefly(gate, instance)));
        await pause(100);
      }
      used.push(cpuMs(gate.pid) - before);
      for (const stream of streams) stream.close();
    }
  } finally {
    await often.close();
    await seldom.close();
  }
  const renewals = 50 * 20;
  const cpuMsEach = round((used[0]! - used[1]!) / renewals);
  console.log(
    `\nconfirmations of a busy instance: ${perMinute} a minute, each one request and one row, about ${cpuMsEach} ms CPU (${renewals} renewals)`,
  );
  return { renewalsPerMinute: perMinute, requestsEach: 1, rowsEach: 1, cpuMsEach };
}

async function briefly(gate: StartedGate, instance: BenchInstance): Promise<void> {
  const stream = await openStream(gate.port, instance.request(PATH));
  stream.close();
  await stream.end;
}

async function measure(
  gate: StartedGate,
  admin: BenchAdmin,
  reach: string,
  target: Readonly<Record<string, string>>,
  streams: readonly OpenStream[],
  reached: number,
): Promise<Measured> {
  const cpuBeforeMs = cpuMs(gate.pid);
  const askedAtMs = nowMs();
  const killing = kill(gate.origin, admin, reach, target);
  const ends: StreamEnd[] = await Promise.all(streams.map(({ end }) => end));
  const receipt: Receipt = await killing;
  const receivedAtMs = nowMs();
  const usedMs = cpuMs(gate.pid) - cpuBeforeMs;
  if (receipt.reached !== reached || receipt.cut !== streams.length || receipt.missing > 0)
    throw new Error(`not as it should be: ${JSON.stringify({ ...receipt, instances: undefined, jws: undefined })}`);
  const last = (pick: (end: StreamEnd) => number): number => ends.reduce((max, end) => Math.max(max, pick(end)), 0);
  return {
    acceptedToEndMs: last(({ closedAtMs }) => closedAtMs) - receipt.acceptedAtMs,
    askedToEndMs: last(({ closedAtMs }) => closedAtMs) - askedAtMs,
    acceptedToLastByteMs: Math.max(0, last(({ lastByteAtMs }) => lastByteAtMs) - receipt.acceptedAtMs),
    acceptedToAcknowledgedMs: (receipt.lastAcknowledgedAtMs ?? receipt.acceptedAtMs) - receipt.acceptedAtMs,
    askedToReceiptMs: receivedAtMs - askedAtMs,
    cpuMs: usedMs,
  };
}

function report(name: string, rounds: readonly Measured[]) {
  const of = (pick: (one: Measured) => number) => {
    const values = rounds.map(pick);
    return {
      p50: round(percentile(values, 0.5)),
      p99: round(percentile(values, 0.99)),
      max: round(Math.max(...values)),
    };
  };
  const figures = {
    rounds: rounds.length,
    acceptedToEndMs: of((one) => one.acceptedToEndMs),
    acceptedToLastByteMs: of((one) => one.acceptedToLastByteMs),
    askedToEndMs: of((one) => one.askedToEndMs),
    acceptedToAcknowledgedMs: of((one) => one.acceptedToAcknowledgedMs),
    askedToReceiptMs: of((one) => one.askedToReceiptMs),
    cpuMs: of((one) => one.cpuMs),
  };
  console.log(`\n${name} (${rounds.length} rounds)`);
  for (const [figure, { p50, p99, max }] of Object.entries(figures).slice(1) as [
    string,
    { p50: number; p99: number; max: number },
  ][])
    console.log(`  ${figure.padEnd(26)} p50 ${p50.toFixed(1)}  p99 ${p99.toFixed(1)}  max ${max.toFixed(1)} ms`);
  return figures;
}

async function enrolMany(gate: StartedGate, count: number, task: string): Promise<BenchInstance[]> {
  const instances: BenchInstance[] = [];
  for (let at = 0; at < count; at += ENROL_AT_ONCE)
    instances.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(ENROL_AT_ONCE, count - at) }, () => enrol(gate.origin, task)),
      )),
    );
  return instances;
}

async function openAll(gate: StartedGate, instances: readonly BenchInstance[]): Promise<OpenStream[]> {
  const streams: OpenStream[] = [];
  for (let at = 0; at < instances.length; at += ENROL_AT_ONCE)
    streams.push(
      ...(await Promise.all(
        instances.slice(at, at + ENROL_AT_ONCE).map((instance) => openStream(gate.port, instance.request(PATH))),
      )),
    );
  // What their opening left to do is done.
  await pause(500);
  return streams;
}

async function liftAll(gate: StartedGate, admin: BenchAdmin): Promise<void> {
  const headers = { authorization: `Bearer ${admin.token}` };
  const listed = await fetch(`${gate.origin}/admin/v1/switches`, { headers });
  const { switches } = (await listed.json()) as { switches: { id: string; opened: unknown }[] };
  for (const { id } of switches.filter(({ opened }) => opened === null)) {
    const body = JSON.stringify({ reason: "bench" });
    const lifted = await fetch(`${gate.origin}/admin/v1/switches/${id}/lift`, { method: "POST", headers, body });
    if (lifted.status !== 200) throw new Error(`lift: ${lifted.status}`);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
