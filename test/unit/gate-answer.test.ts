import { describe, expect, it } from "vitest";
import type { Denial } from "../../src/denial.ts";
import { answerTo } from "../../src/gate/answer.ts";
import { denialOf, outcomeOf, reasonText } from "../../src/gate/outcome.ts";
import type { StopReason } from "../../src/gate/stop.ts";

const METADATA = 'algs="ES256 Ed25519", resource_metadata="https://gate.test/.well-known/oauth-protected-resource"';
const body = (status: number, title: string) => JSON.stringify({ type: "about:blank", title, status });
const COMMON = { "cache-control": "no-store", "content-type": "application/problem+json" };

describe("answerTo", () => {
  it.each<[Denial, number, string, Record<string, string>]>([
    [
      { kind: "unauthenticated", code: "none", reason: "secret" },
      401,
      "Unauthorized",
      { "www-authenticate": `DPoP ${METADATA}` },
    ],
    ...(["invalid_request", "invalid_token", "invalid_dpop_proof"] as const).map(
      (code): [Denial, number, string, Record<string, string>] => [
        { kind: "unauthenticated", code, reason: "secret" },
        401,
        "Unauthorized",
        { "www-authenticate": `DPoP error="${code}", ${METADATA}` },
      ],
    ),
    ...(["route", "describe", "grant", "entitlement", "agent", "boundaries"] as const).map(
      (layer): [Denial, number, string, Record<string, string>] => [
        { kind: "absent", layer, reason: "secret" },
        404,
        "Not Found",
        {},
      ],
    ),
    [{ kind: "too-large", reason: "secret" }, 413, "Content Too Large", {}],
    [{ kind: "limited", limit: "rate", retryAfterSeconds: 7 }, 429, "Too Many Requests", { "retry-after": "7" }],
    [{ kind: "limited", limit: "concurrency", retryAfterSeconds: 1 }, 429, "Too Many Requests", { "retry-after": "1" }],
    [{ kind: "exhausted", budget: "calls" }, 429, "Too Many Requests", {}],
    [{ kind: "exhausted", budget: "bytes" }, 429, "Too Many Requests", {}],
    [{ kind: "exhausted", budget: "units.usd", quota: "money.task-1" }, 429, "Too Many Requests", {}],
    [
      { kind: "exhausted", budget: "calls", quota: "hourly.human-1", retryAfterSeconds: 60 },
      429,
      "Too Many Requests",
      { "retry-after": "60" },
    ],
    [
      { kind: "limited", limit: "rate", quota: "pace.all", retryAfterSeconds: 2 },
      429,
      "Too Many Requests",
      { "retry-after": "2" },
    ],
    [{ kind: "unavailable", reason: "secret" }, 503, "Service Unavailable", { "retry-after": "1" }],
    [{ kind: "upstream-failed", status: 502, reason: "secret" }, 502, "Bad Gateway", {}],
    [{ kind: "upstream-failed", status: 504, reason: "secret" }, 504, "Gateway Timeout", {}],
  ])("%j", async (denial, status, title, headers) => {
    const answer = answerTo(denial, "https://gate.test");
    expect(answer.status).toBe(status);
    expect(Object.fromEntries(answer.headers)).toEqual({ ...COMMON, ...headers });
    expect(await answer.text()).toBe(body(status, title));
  });
});

describe("a call that is pending", () => {
  it.each([null, "approval-1"])("says that, and not why (%s)", async (approval) => {
    const answer = answerTo({ kind: "pending", approval, reason: "secret" }, "https://gate.test");
    expect([answer.status, Object.fromEntries(answer.headers)]).toEqual([503, { ...COMMON, "retry-after": "5" }]);
    const type = "https://gate.test/problems/approval-pending";
    expect(await answer.text()).toBe(JSON.stringify({ type, title: "Service Unavailable", status: 503 }));
  });
});

describe("why a call ended without its answer", () => {
  const cut = (cause: "switched" | "ended" | "expired" | "budget"): StopReason => ({ kind: "cut", cause });
  it.each<[StopReason | null, string, string | null, Partial<Denial>]>([
    [cut("switched"), "cut", "the lease broke: switched", { kind: "unauthenticated", code: "invalid_token" }],
    [cut("ended"), "cut", "the lease broke: ended", { kind: "unauthenticated", code: "invalid_token" }],
    [cut("expired"), "cut", "the lease broke: expired", { kind: "unauthenticated", code: "invalid_token" }],
    [cut("budget"), "cut", "the lease broke: budget", { kind: "exhausted", budget: "bytes" }],
    [{ kind: "lease-lost" }, "cut", "the lease was lost", { kind: "unavailable" }],
    [{ kind: "client-gone" }, "client-gone", null, { kind: "upstream-failed", status: 502 }],
    [
      { kind: "upstream-broke-off" },
      "upstream-failed",
      "the upstream broke off",
      { kind: "upstream-failed", status: 502 },
    ],
    [null, "upstream-failed", "the upstream could not be reached", { kind: "upstream-failed", status: 502 }],
    [{ kind: "timeout", what: "idle" }, "timeout", "idle timeout", { kind: "upstream-failed", status: 504 }],
    [{ kind: "timeout", what: "total" }, "timeout", "total timeout", { kind: "upstream-failed", status: 504 }],
    [
      { kind: "timeout", what: "first byte" },
      "timeout",
      "first byte timeout",
      { kind: "upstream-failed", status: 504 },
    ],
    [
      { kind: "too-large", reason: "the request's body" },
      "too-large",
      "the request's body is too large",
      { kind: "too-large" },
    ],
    [
      { kind: "too-large", reason: "the answer" },
      "too-large",
      "the answer is too large",
      { kind: "upstream-failed", status: 502 },
    ],
  ])("%j", (reason, outcome, text, denial) => {
    expect(outcomeOf(reason)).toBe(outcome);
    expect(reasonText(reason)).toBe(text);
    expect(denialOf(reason)).toMatchObject(denial);
  });
});
