import { generateKeyPairSync } from "node:crypto";
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
                QUERY_KEY: "test-query-credential",
                OAUTH_SECRET: "test oauth/secret",
                APP_KEY: privatePem(),
                CLIENT_KEY: privateJwk(),
              },
            },
          }),
        ],
        resolve: { alias: { "#config": here("./test/workerd/config.ts") } },
        test: { name: "workerd", include: ["test/unit/**/*.test.ts", "test/workerd/**/*.test.ts"] },
      },
      {
        // The running gate, between real parts, from outside.
        test: {
          name: "system",
          include: ["test/system/**/*.test.ts"],
          environment: "node",
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
