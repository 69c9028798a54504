import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type Run, run, startUpstream } from "./load.ts";
import {
  cpuMs,
  enrol,
  MEMORY,
  median,
  round,
  type StartedWorker,
  startGate,
  startWorker,
  workerdVersion,
} from "./worker.ts";

/**
 * A governed call against a bare pass-through Worker: CPU of workerd per call, throughput, and what it adds to the
 * median latency. Both in the same run, in turns, through their direct sockets, against the same upstream.
 */
const SETTINGS = { rounds: 5, calls: 3_000, concurrency: 16, latencyCalls: 400, instances: 8, answerBytes: 1_024 };

interface Target extends StartedWorker {
  readonly name: string;
  requests(count: number): string[];
}

export async function benchCall(): Promise<void> {
  const upstream = await startUpstream(SETTINGS.answerBytes);
  const bare = await startBare(upstream.port);
  const governed = await startGoverned(upstream.port, "governed", tmpdir());
  // The same with its state in memory: what the disk's share is (two fsyncs a call).
  const inMemory = await startGoverned(upstream.port, "in memory", MEMORY);
  // The same with every call under a limit that all instances share, by lease.
  const shared = await startGoverned(upstream.port, "shared", tmpdir(), { shared: true });
  const targets = [bare, governed, inMemory, shared];
  try {
    console.log(`workerd ${workerdVersion()}, Node ${process.version}; ${JSON.stringify(SETTINGS)}`);
    for (const target of targets) await measure(target, { calls: 1_500, concurrency: SETTINGS.concurrency });
    const rounds = targets.map(() => [] as { cpuMs: number; perSecond: number; p50Ms: number }[]);
    for (let round = 0; round < SETTINGS.rounds; round++)
      for (const [i, target] of targets.entries()) {
        const busy = await measure(target, { calls: SETTINGS.calls, concurrency: SETTINGS.concurrency });
        const quiet = await measure(target, { calls: SETTINGS.latencyCalls, concurrency: 1 });
        rounds[i]!.push({ cpuMs: busy.cpuMs, perSecond: busy.perSecond, p50Ms: quiet.p50Ms });
        const { cpuMs, perSecond } = busy;
        console.log(
          `${target.name.padEnd(9)} ${cpuMs.toFixed(3)} ms CPU a call  ${perSecond.toFixed(0).padStart(5)} calls/s  p50 ${quiet.p50Ms.toFixed(2)} ms alone`,
        );
      }
    type Rounds = (typeof rounds)[0];
    const [b, g, m, s] = rounds as [Rounds, Rounds, Rounds, Rounds];
    const ratios = (pick: (r: Rounds[0]) => number, of = g): number[] => of.map((r, i) => pick(r) / pick(b[i]!));
    const figures = {
      bench: "call",
      cpuRatio: round(median(ratios((r) => r.cpuMs))),
      cpuRatioInMemory: round(median(ratios((r) => r.cpuMs, m))),
      /** What a leased quota adds to a governed call. */
      sharedAddsCpuMs: round(median(s.map((r, i) => r.cpuMs - g[i]!.cpuMs))),
      sharedAddsP50Ms: round(median(s.map((r, i) => r.p50Ms - g[i]!.p50Ms))),
      throughputRatio: round(median(ratios((r) => r.perSecond))),
      addedP50Ms: round(median(g.map((r, i) => r.p50Ms - b[i]!.p50Ms))),
      bare: summary(b),
      governed: summary(g),
      inMemory: summary(m),
      shared: summary(s),
      workerd: workerdVersion(),
      settings: SETTINGS,
    };
    console.log(
      `\nA governed call takes ${figures.cpuRatio} times the CPU of a bare one, at ${figures.throughputRatio} of its throughput, and adds ${figures.addedP50Ms} ms at the median.`,
    );
    console.log(JSON.stringify(figures));
  } finally {
    for (const target of targets) await target.close();
    await upstream.close();
  }
}

async function measure(
  target: Target,
  load: { readonly calls: number; readonly concurrency: number },
): Promise<{ cpuMs: number; perSecond: number; p50Ms: number }> {
  const work: Run = { port: target.port, concurrency: load.concurrency, requests: target.requests(load.calls) };
  const before = cpuMs(target.pid);
  const ran = await run(work);
  const used = cpuMs(target.pid) - before;
  if (ran.statuses["200"] !== load.calls) throw new Error(`${target.name}: ${JSON.stringify(ran.statuses)}`);
  return { cpuMs: used / load.calls, perSecond: load.calls / ran.seconds, p50Ms: median(ran.latenciesMs) };
}

async function startBare(upstreamPort: number): Promise<Target> {
  const script = await build({
    entryPoints: [fileURLToPath(new URL("./bare-worker.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    write: false,
  });
  const worker = await startWorker({
    script: script.outputFiles[0]!.text,
    bindings: { UPSTREAM: `http://127.0.0.1:${upstreamPort}` },
    classes: {},
    stateIn: tmpdir(),
  });
  const request = `GET /v0/appX1/Orders HTTP/1.1\r\nHost: 127.0.0.1:${worker.port}\r\nAccept: */*\r\n\r\n`;
  return { name: "bare", ...worker, requests: (count) => Array.from({ length: count }, () => request) };
}

async function startGoverned(upstreamPort: number, name: string, stateIn: string, more: object = {}): Promise<Target> {
  const gate = await startGate({ upstream: `http://127.0.0.1:${upstreamPort}`, ...more }, stateIn);
  const instances = await Promise.all(Array.from({ length: SETTINGS.instances }, () => enrol(gate.origin)));
  let at = 0;
  const requests = (count: number): string[] =>
    Array.from({ length: count }, () => instances[at++ % instances.length]!.request("/saas/v0/appX1/Orders"));
  return { name, ...gate, requests };
}

const summary = (rounds: { cpuMs: number; perSecond: number; p50Ms: number }[]) => ({
  cpuMsPerCall: round(median(rounds.map((r) => r.cpuMs))),
  callsPerSecond: Math.round(median(rounds.map((r) => r.perSecond))),
  p50Ms: round(median(rounds.map((r) => r.p50Ms))),
});
