import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { bundleWorker, COMPATIBILITY_DATE, COMPATIBILITY_FLAGS } from "../scripts/local/gate.ts";
import { choosePort } from "../scripts/local/ports.ts";

/** A file system without a disk behind it, where there is one. */
export const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

/** A Worker in a workerd of its own, whose CPU time can be read. */
export interface StartedWorker {
  readonly port: number;
  readonly pid: number;
  /** All objects of its bucket. */
  stored(): Promise<readonly StoredObject[]>;
  close(): Promise<void>;
}

export interface StoredObject {
  readonly key: string;
  readonly size: number;
  readonly uploadedAtMs: number;
  bytes(): Promise<Uint8Array>;
}

export interface WorkerOptions {
  readonly script: string;
  readonly bindings: Readonly<Record<string, string>>;
  /** Durable Object classes by binding. */
  readonly classes: Readonly<Record<string, string>>;
  /** The state goes into a folder made there, and with it. */
  readonly stateIn: string;
  readonly port?: number;
}

export async function startWorker(options: WorkerOptions): Promise<StartedWorker> {
  const port = options.port ?? (await choosePort(0));
  const stateDir = mkdtempSync(join(options.stateIn, "portcullis-bench-"));
  const before = new Set(workerds());
  process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.NONE),
      // It writes a line for each answer that is broken off.
      handleStructuredLogs: () => {},
      resourcePersistencePath: stateDir,
      workers: [
        {
          name: "bench",
          modules: [{ type: "ESModule", path: "index.mjs", contents: options.script }],
          compatibilityDate: COMPATIBILITY_DATE,
          compatibilityFlags: COMPATIBILITY_FLAGS,
          unsafeDirectSockets: [{ host: "127.0.0.1", port }],
          bindings: options.bindings,
          durableObjects: Object.fromEntries(
            Object.entries(options.classes).map(([name, className]) => [name, { className, useSQLite: true }]),
          ),
          r2Buckets: { TRANSCRIPTS: "transcripts" },
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
  const stored = async (): Promise<readonly StoredObject[]> => {
    const bucket = await miniflare.getR2Bucket("TRANSCRIPTS");
    const objects: StoredObject[] = [];
    for (let cursor: string | undefined, more = true; more; ) {
      const listed = await bucket.list(cursor === undefined ? {} : { cursor });
      for (const { key, size, uploaded } of listed.objects) {
        const bytes = async (): Promise<Uint8Array> => (await bucket.get(key))!.bytes();
        objects.push({ key, size, uploadedAtMs: uploaded.getTime(), bytes });
      }
      more = listed.truncated;
      cursor = listed.truncated ? listed.cursor : undefined;
    }
    return objects;
  };
  return { port, pid, stored, close };
}

const CLASSES = {
  AGENT_INSTANCE: "AgentInstance",
  ROSTER: "Roster",
  SWITCHBOARD: "Switchboard",
  JOURNAL: "Journal",
  RETENTION: "Retention",
  QUOTA: "Quota",
  MANDATE_BOOK: "MandateBook",
  MANDATE_INDEX: "MandateIndex",
  APPROVAL_DESK: "ApprovalDesk",
  CREDENTIAL_BROKER: "CredentialBroker",
};

export interface StartedGate extends StartedWorker {
  readonly origin: string;
}

/** The gate with the bench's own configuration, and an enrolment that needs no identity provider. */
export async function startGate(
  settings: object,
  stateIn: string,
  entry = "bench/enrol-entry.ts",
): Promise<StartedGate> {
  const port = await choosePort(0);
  const origin = `http://127.0.0.1:${port}`;
  const script = await bundleWorker(
    { 'process.env["BENCH"]': JSON.stringify(JSON.stringify({ origin, ...settings })) },
    "bench/config.ts",
    entry,
  );
  const bindings = {
    GRANT_KEYS: privateJwks(),
    SEAL_KEYS: privateJwks(),
    SAAS_TOKEN: "bench-credential-of-an-upstream",
  };
  return { origin, ...(await startWorker({ script, bindings, classes: CLASSES, stateIn, port })) };
}

/** An enrolled instance. */
export interface BenchInstance {
  readonly id: string;
  readonly token: string;
  /** A request line and headers, with a proof of its own. With a length, it is a POST of a body that follows. */
  request(path: string, bodyBytes?: number): string;
}

export async function enrol(origin: string, task = "bench_task"): Promise<BenchInstance> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x, y } = publicKey.export({ format: "jwk" });
  const jwk = { crv: "P-256", kty: "EC", x, y };
  const id = createHash("sha256").update(JSON.stringify(jwk)).digest("base64url");
  const answer = await fetch(`${origin}/bench-enrol`, { method: "POST", body: JSON.stringify({ instance: id, task }) });
  const { enrolled, token } = (await answer.json()) as { enrolled: boolean; token: string };
  if (!enrolled) throw new Error("not enrolled");
  const ath = createHash("sha256").update(token).digest("base64url");
  const header = part({ typ: "dpop+jwt", alg: "ES256", jwk });
  const { host } = new URL(origin);
  const request = (path: string, bodyBytes?: number): string => {
    const method = bodyBytes === undefined ? "GET" : "POST";
    const htu = `${origin}${path.split("?")[0]}`;
    const claims = { jti: randomUUID(), htm: method, htu, iat: seconds(), ath };
    const proof = signEs256(`${header}.${part(claims)}`, privateKey);
    const body = bodyBytes === undefined ? "" : bodyHeaders(bodyBytes);
    return `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nAccept: */*\r\n${body}Authorization: DPoP ${token}\r\nDPoP: ${proof}\r\n\r\n`;
  };
  return { id, token, request };
}

export const bodyHeaders = (bytes: number): string =>
  `Content-Type: application/octet-stream\r\nContent-Length: ${bytes}\r\n`;

export const seconds = (): number => Math.floor(Date.now() / 1000);

export const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");

export const signEs256 = (input: string, key: KeyObject): string =>
  `${input}.${sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;

const privateJwks = (): string => {
  const jwk = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  return JSON.stringify({ keys: [{ ...jwk, kid: jwk.x }] });
};

export const privateKeyOf = (jwk: Readonly<Record<string, string>>): KeyObject =>
  createPrivateKey({ key: { ...jwk }, format: "jwk" });

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
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

export const workerdVersion = (): string =>
  (
    JSON.parse(readFileSync(new URL("../node_modules/workerd/package.json", import.meta.url), "utf8")) as {
      version: string;
    }
  ).version;

export const median = (values: readonly number[]): number => percentile(values, 0.5);

/** The nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]!;
}

export const round = (value: number): number => Math.round(value * 1000) / 1000;

/** The gate with what the platform bills counted. */
export const COUNTED = "bench/counted-entry.ts";

export type Figures = Readonly<Record<string, unknown>>;

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what: string, withinMs: number, holds: () => Promise<boolean>): Promise<void> {
  for (const endMs = Date.now() + withinMs; Date.now() < endMs; await pause(100)) if (await holds()) return;
  throw new Error(`${what} did not come`);
}
