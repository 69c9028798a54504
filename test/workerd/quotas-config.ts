import type { ConfigSource } from "../../src/config/define.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";

/** A metered upstream, and quotas of agents that no other test has. */
export const modelCalls: ScopeEntry = { type: "http", upstream: "model", operations: ["POST /v1/chat"] };

export const modelUpstream = {
  baseUrl: "https://model.test",
  credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
  meters: {
    "input-tokens": { pointer: "/usage/prompt_tokens", reserve: 1_000 },
    "output-tokens": { pointer: "/usage/completion_tokens", reserve: 4_000, failed: 0 },
  },
  prices: {
    usd: {
      of: { "input-tokens": 0.000003, "output-tokens": 0.000015 },
      by: {
        pointer: "/model",
        table: { small: { "input-tokens": 0.00000015, "output-tokens": 0.0000006 } },
      },
    },
  },
} satisfies ConfigSource["upstreams"][string];

const WIDE = { callsPerSecond: 100_000, burst: 100_000, concurrency: 10_000, calls: 1_000_000 };

export const spenders = (ceiling: readonly ScopeEntry[]): ConfigSource["agents"] => {
  const agent = { versions: { "1.0.0": { model: "m", promptDigest: "sha256:0" } }, ceiling };
  return {
    "ten-bot": { ...agent, limits: WIDE, delegation: { agents: ["ten-bot"], depth: 2 } },
    "bytes-bot": { ...agent, limits: WIDE },
    "places-bot": { ...agent, limits: WIDE },
    "paced-bot": { ...agent, limits: WIDE },
    "hourly-bot": { ...agent, limits: WIDE },
    "ample-bot": { ...agent, limits: WIDE },
    "paying-bot": { ...agent, limits: { ...WIDE, units: { usd: 0.15 } }, delegation: { agents: ["paying-bot"] } },
  };
};

export const quotas = {
  ten: { per: "task", agents: ["ten-bot"], calls: 10 },
  mebibytes: { per: "task", agents: ["bytes-bot"], bytes: 1_048_576 },
  places: { per: "task", agents: ["places-bot"], concurrency: 3 },
  paced: { per: "task", agents: ["paced-bot"], callsPerSecond: 1, burst: 5 },
  hourly: { per: ["task", "upstream"], agents: ["hourly-bot"], calls: 4, periodSeconds: 3_600 },
  ample: { per: "human", agents: ["ample-bot"], calls: 100_000 },
  money: { per: "task", agents: ["paying-bot"], upstreams: ["model"], units: { usd: 0.1 } },
} satisfies ConfigSource["quotas"];
