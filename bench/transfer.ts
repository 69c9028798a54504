import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type { Counts } from "./counts.ts";
import { startTransfers, transfer } from "./transfers.ts";
import {
  bodyHeaders,
  COUNTED,
  cpuMs,
  enrol,
  type Figures,
  median,
  round,
  type StartedWorker,
  startGate,
  startWorker,
  until,
} from "./worker.ts";

interface Way {
  readonly worker: StartedWorker;
  head(bytes: number, isUpload: boolean): string;
  /** When the last put of what was transferred was done; null for who stores nothing. */
  readonly storedAtMs: ((bytes: number) => Promise<number>) | null;
}

/** Long bodies, both ways: bare, recorded by the least that can be called so, and governed. */
export async function benchTransfers({
  bytes,
  rounds,
}: {
  readonly bytes: number;
  readonly rounds: number;
}): Promise<Figures> {
  const upstream = await startTransfers();
  const base = `http://127.0.0.1:${upstream.port}`;
  const figures: Record<string, Figures> = {};
  // One after the other: their buckets share the disk.
  for (const [name, start] of Object.entries({ bare, recording, governed, governedAlone })) {
    for (const direction of ["download", "upload"] as const) {
      const way = await start(base);
      try {
        const isUpload = direction === "upload";
        await transfer(way.worker.port, way.head(16_777_216, isUpload), isUpload ? 16_777_216 : 0);
        await way.storedAtMs?.(16_777_216);
        const taken = [];
        for (let i = 0; i < rounds; i++) taken.push(await timed(way, bytes, isUpload));
        figures[`${direction} ${name}`] = {
          seconds: round(median(taken.map(({ seconds }) => seconds))),
          secondsUntilStored: round(median(taken.map(({ untilStored }) => untilStored))),
          cpuSeconds: round(median(taken.map(({ cpuSeconds }) => cpuSeconds))),
          grownMiB: Math.round(Math.max(...taken.map(({ grownMiB }) => grownMiB))),
        };
        console.log(`${direction} ${name}: ${JSON.stringify(figures[`${direction} ${name}`])}`);
      } finally {
        await way.worker.close();
      }
    }
  }
  await upstream.close();
  const of = (name: string, what: string): number => figures[name]![what] as number;
  const ratios = (direction: string): Figures => ({
    toBare: round(of(`${direction} governed`, "secondsUntilStored") / of(`${direction} bare`, "seconds")),
    toRecording: round(
      of(`${direction} governed`, "secondsUntilStored") / of(`${direction} recording`, "secondsUntilStored"),
    ),
    cpuToBare: round(of(`${direction} governed`, "cpuSeconds") / of(`${direction} bare`, "cpuSeconds")),
    aloneToBare: round(of(`${direction} governedAlone`, "secondsUntilStored") / of(`${direction} bare`, "seconds")),
    mebibytesPerSecond: Math.round(bytes / 1_048_576 / of(`${direction} governed`, "secondsUntilStored")),
    aloneMebibytesPerSecond: Math.round(bytes / 1_048_576 / of(`${direction} governedAlone`, "secondsUntilStored")),
  });
  return { ...figures, downloadRatios: ratios("download"), uploadRatios: ratios("upload") };
}

async function timed({ worker, head, storedAtMs }: Way, bytes: number, isUpload: boolean) {
  const memory = watchMemory(worker.pid);
  const cpu = cpuMs(worker.pid);
  const beganAtMs = Date.now();
  const came = await transfer(worker.port, head(bytes, isUpload), isUpload ? bytes : 0);
  if (!isUpload && came < bytes) throw new Error(`${came} bytes of ${bytes}`);
  const seconds = (Date.now() - beganAtMs) / 1_000;
  const untilStored = storedAtMs === null ? seconds : ((await storedAtMs(bytes)) - beganAtMs) / 1_000;
  return { seconds, untilStored, cpuSeconds: (cpuMs(worker.pid) - cpu) / 1_000, grownMiB: memory.stop() };
}

/** How far the process grows beyond what it has at first. */
function watchMemory(pid: number): { stop(): number } {
  const residentMiB = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
  const first = residentMiB();
  let most = first;
  const timer = setInterval(() => {
    most = Math.max(most, residentMiB());
  }, 20);
  return {
    stop: () => {
      clearInterval(timer);
      return most - first;
    },
  };
}

const PATH = "/v0/appX1/Blob";

const plainHead =
  (port: number) =>
  (bytes: number, isUpload: boolean): string =>
    isUpload
      ? `POST ${PATH} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${bodyHeaders(bytes)}\r\n`
      : `GET ${PATH}?bytes=${bytes} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`;

async function bare(upstream: string): Promise<Way> {
  const worker = await startPlain("bare-worker.ts", upstream);
  return { worker, head: plainHead(worker.port), storedAtMs: null };
}

async function recording(upstream: string): Promise<Way> {
  const worker = await startPlain("recording-worker.ts", upstream);
  return { worker, head: plainHead(worker.port), storedAtMs: storedBy(worker) };
}

const governed = (upstream: string): Promise<Way> => startGoverned({ upstream });

/** Without the emulated bucket, which computes in the gate's process: its bytes are read and forgotten. */
const governedAlone = (upstream: string): Promise<Way> => startGoverned({ upstream, discards: true });

async function startGoverned(settings: object): Promise<Way> {
  const gate = await startGate(settings, tmpdir(), COUNTED);
  const agent = await enrol(gate.origin);
  const head = (bytes: number, isUpload: boolean): string =>
    isUpload ? agent.request(`/saas${PATH}`, bytes) : agent.request(`/saas${PATH}?bytes=${bytes}`);
  return { worker: gate, head, storedAtMs: storedBy(gate) };
}

/** As soon as so many bytes more were put. */
function storedBy(worker: StartedWorker): (bytes: number) => Promise<number> {
  let counts: Pick<Counts, "putBytes" | "lastPutAtMs"> = { putBytes: 0, lastPutAtMs: 0 };
  return async (bytes) => {
    const wanted = counts.putBytes + bytes;
    await until("the last put", 120_000, async () => {
      counts = (await (await fetch(`http://127.0.0.1:${worker.port}/bench-counts`)).json()) as Counts;
      return counts.putBytes >= wanted;
    });
    return counts.lastPutAtMs;
  };
}

async function startPlain(entry: string, upstream: string): Promise<StartedWorker> {
  const script = await build({
    entryPoints: [fileURLToPath(new URL(`./${entry}`, import.meta.url))],
    bundle: true,
    format: "esm",
    write: false,
  });
  const bindings = { UPSTREAM: upstream };
  return startWorker({ script: script.outputFiles[0]!.text, bindings, classes: {}, stateIn: tmpdir() });
}
