import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import type { LocalAddresses } from "./config.ts";
import { choosePort } from "./ports.ts";
import type { LocalSecrets } from "./secrets.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** As in wrangler.toml; a test holds them equal. */
export const COMPATIBILITY_DATE = "2026-10-23";
export const COMPATIBILITY_FLAGS = ["nodejs_compat", "enable_request_signal"];

export interface GateOptions {
  readonly port?: number;
  readonly secrets: LocalSecrets;
  readonly addresses: Omit<LocalAddresses, "origin" | "platformKey">;
  /** Where objects and bucket keep their state; nothing: in memory of this run. */
  readonly stateDir?: string;
  /** Opens the bucket by the S3 API to who signs with these. */
  readonly s3?: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** What workerd writes. */
  readonly onLog?: (line: string) => void;
  /** Instead of the product's own module: one of a test, around it. */
  readonly entry?: string;
  /** What that module is told. */
  readonly bindings?: Readonly<Record<string, string>>;
}

/** By this name the S3 API knows the bucket. */
export const BUCKET = "transcripts";

export interface LocalGate {
  readonly origin: string;
  readonly miniflare: Miniflare;
  close(): Promise<void>;
}

/** The Worker as wrangler would bundle it, with another configuration in the place of `#config`. */
export async function bundleWorker(
  define: Record<string, string>,
  config: string,
  entry = "src/index.ts",
): Promise<string> {
  const bundled = await build({
    entryPoints: [`${root}${entry}`],
    bundle: true,
    format: "esm",
    target: "es2024",
    write: false,
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*", "node:*"],
    alias: { "#config": `${root}${config}` },
    define,
    logLevel: "silent",
  });
  return bundled.outputFiles[0]!.text;
}

/** The gate in real workerd, on loopback, through a socket of its own (Miniflare's entry socket would rewrite requests). */
export async function startGate(options: GateOptions): Promise<LocalGate> {
  const port = await choosePort(options.port ?? 0);
  const origin = `http://127.0.0.1:${port}`;
  const { secrets } = options;
  const { d: _private, ...platformKey } = secrets.platformClientKey;
  const local: LocalAddresses = { ...options.addresses, origin, platformKey };
  const script = await bundleWorker(
    { 'process.env["LOCAL"]': JSON.stringify(JSON.stringify(local)) },
    "scripts/local/config.ts",
    options.entry,
  );
  process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.NONE),
      ...(options.stateDir === undefined ? {} : { resourcePersistencePath: options.stateDir }),
      handleStructuredLogs: ({ message }: { message: string }) => options.onLog?.(message),
      workers: [
        {
          name: "portcullis",
          modules: [{ type: "ESModule", path: "index.mjs", contents: script }],
          compatibilityDate: COMPATIBILITY_DATE,
          compatibilityFlags: COMPATIBILITY_FLAGS,
          unsafeDirectSockets: [{ host: "127.0.0.1", port }],
          durableObjects: {
            AGENT_INSTANCE: { className: "AgentInstance", useSQLite: true },
            ROSTER: { className: "Roster", useSQLite: true },
            SWITCHBOARD: { className: "Switchboard", useSQLite: true },
            JOURNAL: { className: "Journal", useSQLite: true },
            RETENTION: { className: "Retention", useSQLite: true },
            QUOTA: { className: "Quota", useSQLite: true },
            MANDATE_BOOK: { className: "MandateBook", useSQLite: true },
            MANDATE_INDEX: { className: "MandateIndex", useSQLite: true },
            APPROVAL_DESK: { className: "ApprovalDesk", useSQLite: true },
            CREDENTIAL_BROKER: { className: "CredentialBroker", useSQLite: true },
          },
          r2Buckets: {
            TRANSCRIPTS: options.s3 === undefined ? BUCKET : { id: BUCKET, s3Credentials: options.s3 },
          },
          bindings: {
            GRANT_KEYS: JSON.stringify(secrets.grantKeys),
            SEAL_KEYS: JSON.stringify(secrets.sealKeys),
            GITHUB_TOKEN: secrets.githubToken,
            SLACK_TOKEN: secrets.slackToken,
            MODEL_KEY: secrets.modelKey,
            ...(local.transmitter === undefined ? {} : { CORP_SIGNALS_TOKEN_SHA256: local.transmitter.tokenDigest }),
            // The gate knows the digest alone.
            BREAK_GLASS_ONCALL: createHash("sha256").update(secrets.breakGlassKey).digest("hex"),
            ...options.bindings,
          },
        },
      ],
    } as Parameters<typeof convertV4MiniflareOptions>[0]),
  );
  await miniflare.ready;
  return { origin, miniflare, close: () => miniflare.dispose() };
}

/** For a first run that must begin empty. */
export const clearState = (stateDir: string): void => rmSync(stateDir, { recursive: true, force: true });
