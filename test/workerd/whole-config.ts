import type { ConfigSource } from "../../src/config/define.ts";
import type { BoundarySource, ScopeEntry } from "../../src/config/layers.ts";

/** One upstream with everything that an upstream can have. */
export const wholeUpstream = {
  baseUrl: "https://whole.test",
  credential: { kind: "header", header: "X-Api-Key", secret: "QUERY_KEY", value: "{secret}" },
  delegation: { header: "X-Acting-For" },
  meters: { "whole-tokens": { pointer: "/usage/total", reserve: 100, operations: ["POST /pay/{id}"] } },
  prices: { "whole-usd": { of: { "whole-tokens": 0.01 } } },
  redact: [
    {
      name: "iban",
      in: "answer",
      operations: ["POST /pay/{id}"],
      fields: ["/iban"],
      headers: ["x-iban"],
    },
  ],
  // Less than a person takes.
  totalTimeoutMs: 1_500,
} satisfies ConfigSource["upstreams"][string];

export const wholeCalls: ScopeEntry = {
  type: "http",
  upstream: "whole",
  operations: ["GET /{+path}", "POST /{+path}"],
};
export const wholeHeldBack: BoundarySource = {
  ...wholeCalls,
  operations: ["POST /pay/{id}"],
  effect: "approve",
  approval: { waitSeconds: 30 },
};
