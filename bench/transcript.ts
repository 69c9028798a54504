import { tmpdir } from "node:os";
import type { Counts } from "./counts.ts";
import { run, startUpstream } from "./load.ts";
import { benchTransfers } from "./transfer.ts";
import {
  type BenchInstance,
  COUNTED,
  cpuMs,
  enrol,
  type Figures,
  MEMORY,
  median,
  pause,
  percentile,
  round,
  type StartedGate,
  startGate,
  until,
  workerdVersion,
} from "./worker.ts";

const SETTINGS = {
  perCall: { instances: 4, calls: 2_000, concurrency: 16, answerBytes: 1_024 },
  transfer: { bytes: 1_073_741_824, rounds: 1 },
  lag: { instances: 1_000, callsPerSecond: 500, seconds: 60, flushAfterMs: 30_000 },
};

/** What a transcript costs: operations of a call, long bodies, how long it is until records stand in R2, dollars. */
export async function benchTranscript(only?: string): Promise<void> {
  const scenarios: Readonly<Record<string, () => Promise<Figures>>> = {
    perCall,
    transfer: () => benchTransfers(SETTINGS.transfer),
    lag,
  };
  if (only !== undefined && !Object.hasOwn(scenarios, only))
    throw new Error(`No scenario "${only}". There is: ${Object.keys(scenarios).join(", ")}.`);
  console.log(`workerd ${workerdVersion()}, Node ${process.version}; ${JSON.stringify(SETTINGS)}`);
  const figures: Record<string, Figures> = {};
  for (const [name, scenario] of Object.entries(scenarios))
    if (only === undefined || only === name) figures[name] = await scenario();
  const { perCall: calls, lag: lagging } = figures;
  if (calls !== undefined && lagging !== undefined) figures["dollars"] = dollars(calls, lagging);
  console.log(JSON.stringify({ bench: "transcript", ...figures, workerd: workerdVersion(), settings: SETTINGS }));
}

// --- one call -----------------------------------------------------------------------------------------------------

/** Calls without a flush between them, and then one flush of each instance. */
async function perCall(): Promise<Figures> {
  const { instances, calls, concurrency, answerBytes } = SETTINGS.perCall;
  const upstream = await startUpstream(answerBytes);
  const gate = await startGate(
    { upstream: `http://127.0.0.1:${upstream.port}`, flushAfterMs: 15_000 },
    tmpdir(),
    COUNTED,
  );
  try {
    const agents = await enrolMany(gate, instances);
    const before = await countsOf(gate);
    const cpu = cpuMs(gate.pid);
    const ran = await run({ port: gate.port, concurrency, requests: requestsOf(agents, calls) });
    if (ran.statuses["200"] !== calls) throw new Error(JSON.stringify(ran.statuses));
    const cpuMsPerCall = (cpuMs(gate.pid) - cpu) / calls;
    const between = await countsOf(gate);
    await until("the flush", 40_000, async () => segmentsIn(await gate.stored()) >= instances);
    // The objects arm their next alarm after the put.
    await pause(1_000);
    const after = await countsOf(gate);
    const stored = (await gate.stored()).reduce((sum, { size }) => sum + size, 0);
    const call = less(between, before);
    const flush = less(after, between);
    const figures = {
      durableObjectRequests: call.requests / calls,
      rows: call.rows / calls,
      cpuMs: round(cpuMsPerCall),
      storedBytes: Math.round(stored / calls),
      perSegment: {
        puts: flush.puts / instances,
        rows: flush.rows / instances,
        alarms: flush.alarms / instances,
        alarmsSet: flush.alarmsSet / instances,
        durableObjectRequests: flush.requests / instances,
      },
    };
    console.log(`one call: ${JSON.stringify(figures)}`);
    return figures;
  } finally {
    await gate.close();
    await upstream.close();
  }
}

// --- the flush ----------------------------------------------------------------------------------------------------

/** From a record's time to the moment when its segment stands in R2. State in memory: with two fsyncs a call, two cores do not reach this rate. */
async function lag(): Promise<Figures> {
  const { instances, callsPerSecond, seconds, flushAfterMs } = SETTINGS.lag;
  const upstream = await startUpstream(SETTINGS.perCall.answerBytes);
  const gate = await startGate({ upstream: `http://127.0.0.1:${upstream.port}`, flushAfterMs }, MEMORY, COUNTED);
  try {
    const agents = await enrolMany(gate, instances);
    const calls = callsPerSecond * seconds;
    const requests = requestsOf(agents, calls);
    const before = await countsOf(gate);
    const cpu = cpuMs(gate.pid);
    const ran = await run({ port: gate.port, concurrency: 64, requests, perSecond: callsPerSecond });
    if (ran.statuses["200"] !== calls) throw new Error(JSON.stringify(ran.statuses));
    const cpuMsPerCall = (cpuMs(gate.pid) - cpu) / calls;
    let after = before;
    await until("the last flush", 60_000, async () => {
      after = await countsOf(gate);
      return after.segments.reduce((sum, { records }) => sum + records, 0) >= 2 * calls + instances;
    });
    const lags = after.segments.map(({ lagMs }) => lagMs);
    const { segments, ...counted } = less(after, before);
    const figures = {
      callsPerSecond: round(calls / ran.seconds),
      p50Ms: Math.round(median(lags)),
      p99Ms: Math.round(percentile(lags, 0.99)),
      maxMs: Math.round(Math.max(...lags)),
      beyondFlushP99Ms: Math.round(percentile(lags, 0.99)) - flushAfterMs,
      callP50Ms: round(median(ran.latenciesMs)),
      callP99Ms: round(percentile(ran.latenciesMs, 0.99)),
      cpuMsPerCall: round(cpuMsPerCall),
      segments,
      counted,
    };
    console.log(`flush lag: ${JSON.stringify(figures)}`);
    return figures;
  } finally {
    await gate.close();
    await upstream.close();
  }
}

const segmentsIn = (objects: readonly { readonly key: string }[]): number =>
  objects.filter(({ key }) => key.startsWith("transcripts/human=")).length;

// --- dollars ------------------------------------------------------------------------------------------------------

/** Cloudflare's list prices, per million, and per million of milliseconds and of seconds of an object. */
const PRICE = { request: 0.3, cpuMs: 0.02, objectRequest: 0.15, row: 1, put: 4.5, objectSecond: 1.6 };

/** Three minutes after a flush its table is dropped: later than this bench waits. A busy instance does it with a flush. */
const DROP = { alarms: 1, alarmsSet: 1, rows: 1 };

/** Of a million calls: counted operations, times list prices. What a call holds its object is its upstream's time. */
function dollars(calls: Figures, lagging: Figures): Figures {
  const { rows, durableObjectRequests, cpuMs: cpu } = calls as unknown as Record<string, number>;
  const segment = calls["perSegment"] as Record<string, number>;
  const perSegment =
    segment["puts"]! * PRICE.put +
    (segment["rows"]! + segment["alarmsSet"]! + DROP.rows + DROP.alarmsSet) * PRICE.row +
    (segment["alarms"]! + segment["durableObjectRequests"]! + DROP.alarms) * PRICE.objectRequest;
  const perCallAlone =
    PRICE.request + cpu! * PRICE.cpuMs + durableObjectRequests! * PRICE.objectRequest + rows! * PRICE.row;
  // An enrolment: its requests and rows, and the token endpoint's request.
  const enrolment = PRICE.request + 2 * PRICE.objectRequest + 4 * PRICE.row;
  const mix = (upstreamSeconds: number, callsPerSegment: number, callsPerInstance: number): number =>
    round(
      perCallAlone + upstreamSeconds * PRICE.objectSecond + perSegment / callsPerSegment + enrolment / callsPerInstance,
    );
  const { flushAfterMs } = SETTINGS.lag;
  const counted = {
    perCallAlone: round(perCallAlone),
    perSegment: round(perSegment),
    callsPerSegmentAtOneASecond: flushAfterMs / 1_000,
    /** A call a second for an hour, upstreams of 50 ms. */
    longLived: mix(0.05, flushAfterMs / 1_000, 3_600),
    /** Ten calls a second for an hour. */
    busy: mix(0.05, flushAfterMs / 100, 3_600 * 10),
    /** Twenty calls one after the other, upstreams of two seconds. */
    twenty: mix(2, 20 / Math.ceil(40_000 / flushAfterMs), 20),
    measuredCallsPerSegment: round((SETTINGS.lag.callsPerSecond * SETTINGS.lag.seconds) / Number(lagging["segments"])),
  };
  console.log(`dollars per million calls: ${JSON.stringify(counted)}`);
  return counted;
}

// --- all ----------------------------------------------------------------------------------------------------------

async function enrolMany(gate: StartedGate, count: number): Promise<readonly BenchInstance[]> {
  const agents: BenchInstance[] = [];
  while (agents.length < count) {
    const some = Math.min(50, count - agents.length);
    agents.push(...(await Promise.all(Array.from({ length: some }, () => enrol(gate.origin)))));
  }
  return agents;
}

const requestsOf = (agents: readonly BenchInstance[], calls: number): string[] =>
  Array.from({ length: calls }, (_, i) => agents[i % agents.length]!.request("/saas/v0/appX1/Orders"));

const countsOf = async (gate: StartedGate): Promise<Counts> =>
  (await (await fetch(`${gate.origin}/bench-counts`)).json()) as Counts;

function less(after: Counts, before: Counts) {
  const numbers = (counts: Counts) => ({ ...counts, segments: counts.segments.length });
  const was = numbers(before);
  return Object.fromEntries(
    Object.entries(numbers(after)).map(([name, value]) => [name, value - was[name as keyof typeof was]]),
  ) as Record<keyof typeof was, number>;
}
