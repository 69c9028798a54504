import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { bundleWorker, COMPATIBILITY_DATE, COMPATIBILITY_FLAGS } from "../scripts/local/gate.ts";
import { choosePort } from "../scripts/local/ports.ts";
import { type Run, run, startUpstream } from "./load.ts";

/**
 * A governed call against a bare pass-through Worker: CPU of workerd per call, throughput, and what it adds to the
 * median latency. Both in the same run, in turns, through their direct sockets, against the same upstream.
 */
const SETTINGS = { rounds: 5, calls: 3_000, concurrency: 16, latencyCalls: 400, instances: 8, answerBytes: 1_024 };

/** A file system without a disk behind it, where there is one. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

interface Target {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  requests(count: number): string[];
  close(): Promise<void>;
}

export async function benchCall(): Promise<void> {
  const upstream = await startUpstream(SETTINGS.answerBytes);
  const bare = await startBare(upstream.port);
  const governed = await startGoverned(upstream.port, "governed", tmpdir());
  // The same with its state in memory: what the disk's share is (two fsyncs a call).
  const inMemory = await startGoverned(upstream.port, "in memory", MEMORY);
  const targets = [bare, governed, inMemory];
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
    const [b, g, m] = rounds as [Rounds, Rounds, Rounds];
    const ratios = (pick: (r: Rounds[0]) => number, of = g): number[] => of.map((r, i) => pick(r) / pick(b[i]!));
    const figures = {
      bench: "call",
      cpuRatio: round(median(ratios((r) => r.cpuMs))),
      cpuRatioInMemory: round(median(ratios((r) => r.cpuMs, m))),
      throughputRatio: round(median(ratios((r) => r.perSecond))),
      addedP50Ms: round(median(g.map((r, i) => r.p50Ms - b[i]!.p50Ms))),
      bare: summary(b),
      governed: summary(g),
      inMemory: summary(m),
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
  return { cpuMs: used / load.calls, perSecond: load.calls / ran.seconds, p50Ms: median([...ran.latenciesMs]) };
}

async function startBare(upstreamPort: number): Promise<Target> {
  const script = await build({
    entryPoints: [fileURLToPath(new URL("./bare-worker.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    write: false,
  });
  const worker = await startWorker(
    script.outputFiles[0]!.text,
    { UPSTREAM: `http://127.0.0.1:${upstreamPort}` },
    {},
    tmpdir(),
  );
  const request = `GET /v0/appX1/Orders HTTP/1.1\r\nHost: 127.0.0.1:${worker.port}\r\nAccept: */*\r\n\r\n`;
  return { name: "bare", ...worker, requests: (count) => Array.from({ length: count }, () => request) };
}

async function startGoverned(upstreamPort: number, name: string, stateIn: string): Promise<Target> {
  const port = await choosePort(0);
  const origin = `http://127.0.0.1:${port}`;
  const settings = JSON.stringify({ origin, upstream: `http://127.0.0.1:${upstreamPort}` });
  const script = await bundleWorker(
    { 'process.env["BENCH"]': JSON.stringify(settings) },
    "bench/config.ts",
    "bench/enrol-entry.ts",
  );
  const bindings = { GRANT_KEYS: privateJwks(), SEAL_KEYS: privateJwks(), SAAS_TOKEN: "bench" };
  const classes = { AGENT_INSTANCE: "AgentInstance", ROSTER: "Roster", SWITCHBOARD: "Switchboard", JOURNAL: "Journal" };
  const worker = await startWorker(script, bindings, classes, stateIn, port);
  const instances = await Promise.all(Array.from({ length: SETTINGS.instances }, () => enrol(origin)));
  let at = 0;
  const requests = (count: number): string[] =>
    Array.from({ length: count }, () => {
      const { token, prove } = instances[at++ % instances.length]!;
      return `GET /saas/v0/appX1/Orders HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: */*\r\nAuthorization: DPoP ${token}\r\nDPoP: ${prove()}\r\n\r\n`;
    });
  return { name, ...worker, requests };
}

async function enrol(origin: string): Promise<{ token: string; prove(): string }> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x, y } = publicKey.export({ format: "jwk" });
  const jwk = { crv: "P-256", kty: "EC", x, y };
  const instance = createHash("sha256").update(JSON.stringify(jwk)).digest("base64url");
  const answer = await fetch(`${origin}/bench-enrol`, { method: "POST", body: JSON.stringify({ instance }) });
  const { token } = (await answer.json()) as { token: string };
  const ath = createHash("sha256").update(token).digest("base64url");
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const header = part({ typ: "dpop+jwt", alg: "ES256", jwk });
  const prove = (): string => {
    const claims = {
      jti: randomUUID(),
      htm: "GET",
      htu: `${origin}/saas/v0/appX1/Orders`,
      iat: Math.floor(Date.now() / 1000),
      ath,
    };
    const input = `${header}.${part(claims)}`;
    return `${input}.${sign("sha256", Buffer.from(input), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
  };
  return { token, prove };
}

async function startWorker(
  script: string,
  bindings: Record<string, string>,
  classes: Record<string, string>,
  stateIn: string,
  wanted?: number,
): Promise<{ port: number; pid: number; close(): Promise<void> }> {
  const port = wanted ?? (await choosePort(0));
  const stateDir = mkdtempSync(join(stateIn, "portcullis-bench-"));
  const before = new Set(workerds());
  process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.NONE),
      resourcePersistencePath: stateDir,
      workers: [
        {
          name: "bench",
          modules: [{ type: "ESModule", path: "index.mjs", contents: script }],
          compatibilityDate: COMPATIBILITY_DATE,
          compatibilityFlags: COMPATIBILITY_FLAGS,
          unsafeDirectSockets: [{ host: "127.0.0.1", port }],
          bindings,
          durableObjects: Object.fromEntries(
            Object.entries(classes).map(([name, className]) => [name, { className, useSQLite: true }]),
          ),
          ...(Object.keys(classes).length === 0 ? {} : { r2Buckets: { TRANSCRIPTS: "transcripts" } }),
        },
      ],
    } as Parameters<typeof convertV4MiniflareOptions>[0]),
  );
  await miniflare.ready;
  const pid = workerds().find((candidate) => !before.has(candidate));
  if (pid === undefined) throw new Error("no workerd process found");
  const close = async (): Promise<void> => {
    await miniflare.dispose();
    rmSync(stateDir, { recursive: true, force: true });
  };
  return { port, pid, close };
}

/** Our own workerd processes. */
function workerds(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
        const [, comm, rest] = /^\d+ \((.*)\) (.*)$/s.exec(stat) ?? [];
        return comm === "workerd" && rest?.split(" ")[1] === String(process.pid);
      } catch {
        return false;
      }
    });
}

/** User and system time, in ticks of 10 ms: a run takes hundreds of them. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

const privateJwks = (): string => {
  const jwk = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  return JSON.stringify({ keys: [{ ...jwk, kid: jwk.x }] });
};

const workerdVersion = (): string =>
  (
    JSON.parse(readFileSync(new URL("../node_modules/workerd/package.json", import.meta.url), "utf8")) as {
      version: string;
    }
  ).version;

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

const round = (value: number): number => Math.round(value * 1000) / 1000;

const summary = (rounds: { cpuMs: number; perSecond: number; p50Ms: number }[]) => ({
  cpuMsPerCall: round(median(rounds.map((r) => r.cpuMs))),
  callsPerSecond: Math.round(median(rounds.map((r) => r.perSecond))),
  p50Ms: round(median(rounds.map((r) => r.p50Ms))),
});
