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

process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";

/** Half of a system file's time is waiting, for timers, polls and flushes: more files than cores run at once. */
const maxWorkers = Math.ceil(availableParallelism() * 1.5);
/** Files that starve the machine, or measure what a starved one can't do: one after another, when all others are done. */
const alone = ["test/system/kill-flood.test.ts", "test/system/slow-fsync.test.ts"];

const system = { environment: "node", testTimeout: 60_000, hookTimeout: 60_000 } as const;

export default defineConfig({
  test: {
    projects: [
      {
        // Pure code and Durable Objects, inside of workerd.
        plugins: [
          cloudflareTest({
            wrangler: { configPath: "./wrangler.toml" },
            miniflare: {
              bindings: {
                GRANT_KEYS: privateJwks(),
                SEAL_KEYS: privateJwks(),
                GITHUB_TOKEN: "test-github-credential",
              },
            },
          }),
        ],
        resolve: { alias: { "#config": here("./test/workerd/config.ts") } },
        test: { name: "workerd", include: ["test/unit/**/*.test.ts", "test/workerd/**/*.test.ts"], maxWorkers },
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
