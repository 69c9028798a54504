// What a gate always writes in the records of an instance, for tests that speak of something else: what a test says itself comes
// before it. It counts, so that the end says what the records add up to.

import { type Fields, type RecordType, sha256Hex } from "../../src/transcript/envelope.ts";

type Body = { readonly bytes: number | null; readonly complete?: boolean; readonly mayMiss?: number } | null;

const MANIFEST = { model: "m", promptDigest: "sha256:0", tools: {} };
const METHODS = ["GET", "POST", "PUT", "DELETE"];
const UPSTREAMS = ["up", "bank"];
const ENTRIES = UPSTREAMS.map((upstream) => ({
  type: "http",
  upstream,
  operations: METHODS.map((method) => `${method} /{+path}`),
}));
const LIMITS = {
  callsPerSecond: 1_000,
  burst: 1_000,
  concurrency: 1_000,
  calls: 1_000_000,
  bytes: 1e12,
  refusalsRecordedPerMinute: 30,
  units: {},
};

export class SoundRecords {
  readonly #ids: Fields;
  #deadline = 0;
  #cause = "deadline";
  #calls = 0;
  #bytes = 0;

  constructor(ids: Fields) {
    this.#ids = ids;
  }

  /** @param seq that it gets */
  fill(type: RecordType, seq: number, said: Fields): Fields {
    const chain = [{ client: "platform", agent: "bot", agentVersion: "1", instance: this.#ids["instance"]! }];
    const identity = {
      ...this.#ids,
      agent: "bot",
      agentVersion: "1",
      manifestDigest: sha256Hex(JSON.stringify(MANIFEST)),
      client: "platform",
      chain,
      grant: "grant-1",
      deployment: "test",
    };
    const fields = { ...identity, ...this.#fieldsOf(type, seq, said), ...said };
    this.#count(type, fields);
    return fields;
  }

  /** When an end can be dated: not before the deadline, where nothing else ended it. */
  endsAt(atMs: number): number {
    return this.#cause === "deadline" ? Math.max(atMs, this.#deadline) : atMs;
  }

  #fieldsOf(type: RecordType, seq: number, said: Fields): Fields {
    switch (type) {
      case "enrolled":
        return { manifest: MANIFEST, purpose: "test", scope: ENTRIES, limits: LIMITS, parent: null };
      case "renewed":
        return { issued: `grant of ${seq}`, expires: 9e12 };
      case "call":
        return { ...REQUEST, decision: decisionOf({ ...REQUEST, ...said }) };
      case "answer":
        return answerOf((said["body"] ?? null) as Body);
      case "refused":
        if (said["counted"] !== undefined) return {};
        return { ...REQUEST, body: null, decision: { allowed: false, layer: "grant", kind: "absent", reason: "test" } };
      case "switched":
        if (said["act"] === "revoke") return { reach: "instance", by: "test" };
        return { ...SWITCH, switch: `switch of ${seq}`, reach: "upstream", switchTarget: { upstream: "elsewhere" } };
      case "approval":
        return this.#approvalOf(said["state"]);
      case "ended":
        return { cause: this.#cause, calls: this.#calls, bytes: this.#bytes };
      default:
        return {};
    }
  }

  #approvalOf(state: unknown): Fields {
    if (state === "approved") return { by: "olga", reason: "test", validUntil: this.#deadline };
    if (state !== "asked") return { by: "olga", reason: "test" };
    const expires = this.#deadline;
    return { ...REQUEST, body: null, entries: ["boundaries[0]"], groups: [], notDelegator: true, expires };
  }

  #count(type: RecordType, fields: Fields): void {
    const bytesOf = (name: string): number => (fields[name] as Body | undefined)?.bytes ?? 0;
    if (type === "enrolled") this.#deadline = fields["deadline"] as number;
    if (type === "call") this.#calls++;
    if (type === "call") this.#bytes += bytesOf("body");
    if (type === "answer") this.#bytes += bytesOf("body") + bytesOf("requestBody");
    if (type === "switched" && fields["act"] === "revoke") this.#cause = "revoked";
    if (type === "switched" && fields["act"] === "kill") this.#cause = "switched";
  }
}

const REQUEST = { upstream: "up", method: "GET", target: "/up/x", headers: [] };

const SWITCH = { act: "pause", reason: "test", by: "test", causedBy: null, accepted: 0, until: null };

/** By the entry of its upstream. */
function decisionOf({ upstream, method }: Fields): Fields {
  const operation = `${method} /{+path}`;
  const places = {
    entitlement: "entitlements.groups.all[0]",
    agent: "agents.bot.ceiling[0]",
    boundaries: "boundaries[0]",
  };
  const ceilings = Object.entries(places).map(([layer, at]) => ({ layer, at, operation }));
  return { allowed: true, entry: UPSTREAMS.indexOf(upstream as string), operation, ceilings };
}

/** As whole as its body says that it is. */
function answerOf(body: Body): Fields {
  if (body?.mayMiss !== undefined) return { outcome: "lost", reason: "test", upstreamOutcome: "unknown" };
  const timing = { startedAtMs: 1, firstByteAtMs: 2, lastByteAtMs: 3, endedAtMs: 4 };
  const isWhole = body?.complete !== false;
  return {
    ...(isWhole ? { outcome: "complete" } : { outcome: "client-gone", upstreamOutcome: "unknown" }),
    status: 200,
    headers: [],
    passedBytes: isWhole ? (body?.bytes ?? 0) : 0,
    forwardedBytes: 0,
    timing,
  };
}
