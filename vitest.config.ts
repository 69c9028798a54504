import { generateKeyPairSync } from "node:crypto";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Fresh for every run: no key in the repository. */
const privateJwks = (): string => {
  const jwk = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  return JSON.stringify({ keys: [{ ...jwk, kid: jwk.x }] });
};

const privatePem = (): string =>
  generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs8", format: "pem" }) as string;
const privateJwk = (): string => {
  const jwk = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  return JSON.stringify({ ...jwk, alg: "ES256", kid: "gate-1" });
};

process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";

/** Half of a system file's time is waiting, for timers, polls and flushes. More files at once than cores starve each other. */
const maxWorkers = Math.ceil(availableParallelism());
/** Files that starve the machine, or measure what a starved one can't do: one after another, when all others are done. */
const alone = ["test/system/kill-flood.test.ts", "test/system/slow-fsync.test.ts", "test/system/soak.test.ts"];

/** Of the random choices that tests make: `TEST_SEED` of a run that failed makes the same again. */
const seed = Number(process.env["TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
if (!Number.isInteger(seed)) throw new Error("TEST_SEED: not an integer");

const system = {
  environment: "node",
  testTimeout: 60_000,
  hookTimeout: 60_000,
  // The command line is started some hundred times, and each time it would be compiled anew.
  env: { NODE_COMPILE_CACHE: here("./node_modules/.cache/node-compile") },
} as const;

/** For what runs inside of workerd. Longer than anything there takes: a limit is to end what hangs, and not to measure a busy machine. */
const patient = {
  testTimeout: 30_000,
  hookTimeout: 30_000,
  expect: { poll: { timeout: 10_000 } },
  setupFiles: ["./test/patience.ts"],
};

/** Inside of workerd, as the product is. */
const insideWorkerd = () => ({
  plugins: [
    cloudflareTest({
      wrangler: { configPath: "./wrangler.toml" },
      miniflare: {
        bindings: {
          GRANT_KEYS: privateJwks(),
          SEAL_KEYS: privateJwks(),
          GITHUB_TOKEN: "test-github-credential",
          QUERY_KEY: "test-query-credential",
          OAUTH_SECRET: "test oauth/secret",
          APP_KEY: privatePem(),
          CLIENT_KEY: privateJwk(),
          APPROVALS_WEBHOOK: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        },
      },
    }),
  ],
  resolve: { alias: { "#config": here("./test/workerd/config.ts") } },
});

export default defineConfig({
  test: {
    provide: { seed },
    projects: [
      {
        // Pure code: nothing of a file stays behind that another could meet, so all of them share one workerd.
        ...insideWorkerd(),
        test: { ...patient, name: "unit", include: ["test/unit/**/*.test.ts"], isolate: false, maxWorkers },
      },
      {
        // Durable Objects.
        ...insideWorkerd(),
        test: { ...patient, name: "workerd", include: ["test/workerd/**/*.test.ts"], maxWorkers },
      },
      {
        // The running gate, between real parts, from outside.
        test: { ...system, name: "system", include: ["test/system/**/*.test.ts"], exclude: alone, maxWorkers },
      },
      {
        test: {
          ...system,
          name: "system-alone",
          include: alone,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
