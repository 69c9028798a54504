// An operation that an earlier release granted, and that no configuration and no request may name any more: who holds it works on, and
// what stands on record of it still verifies.

import { describe, expect, it } from "vitest";
import { type GrantClaims, issueGrant, verifyGrant } from "../../src/grant/claims.ts";
import { ceilingsOf, permitsOf } from "../../src/instance/ceilings.ts";
import type { Call } from "../../src/scope/call.ts";
import { parseAuthorizationDetails, parseEntries, readEntries } from "../../src/scope/entry.ts";
import { Sums } from "../../src/transcript/verify-amounts.ts";
import { ChildrenReader } from "../../src/transcript/verify-children.ts";
import { ScopeReader } from "../../src/transcript/verify-scope.ts";
import type { CallSaid, Delegation, Enrolled } from "../../src/transcript/verify-shapes.ts";
import { newRing } from "./transcript-kit.ts";

const OPERATION = "GET /*/_search";
const SCOPE = [{ type: "http", upstream: "elastic", operations: [OPERATION] }];
const WHY = "* and :name are no wildcards here: {name} is one segment, {+name} is all that follow";
const call: Call = {
  upstream: "elastic",
  method: "GET",
  segments: ["*", "_search"],
  query: [],
  body: { kind: "none" },
};

describe("an operation with a part that is a wildcard elsewhere", () => {
  it("is refused in what is configured or asked for, and read in what was granted", () => {
    const refused = { ok: false, error: { path: "x[0].operations[0]", message: WHY } };
    expect(parseEntries(SCOPE, "x")).toEqual(refused);
    expect(parseAuthorizationDetails(JSON.stringify(SCOPE)).ok).toBe(false);
    expect(readEntries(SCOPE, "x").ok).toBe(true);
    // It is lenient in nothing else.
    expect(readEntries([{ ...SCOPE[0], operations: ["GET /a/../b"] }], "x").ok).toBe(false);
  });

  it("is held by a grant that was issued with it", async () => {
    const ring = await newRing("k");
    const claims = {
      iss: "https://gate.test",
      sub: "h",
      aud: ["https://gate.test/elastic"],
      client_id: "c",
      jti: "g",
      iat: 1_000,
      exp: 2_000,
      cnf: { jkt: "t" },
      authorization_details: SCOPE,
    } as unknown as GrantClaims;
    expect(verifyGrant(issueGrant(ring, claims), ring, "https://gate.test", 1_500_000)).toMatchObject({
      ok: true,
      value: { entries: [{ operations: [{ text: OPERATION }] }] },
    });
  });

  it("is within the parent's scope that holds it", () => {
    const config = { entitlements: { groups: {}, humans: {} }, agents: {}, boundaries: [] } as unknown as Parameters<
      typeof ceilingsOf
    >[0];
    const who = { human: "h", emailDigest: null, agent: "bot", groups: [], parentScope: SCOPE };
    const parent = ceilingsOf(config, who).filter(({ name }) => name === "parent");
    expect(permitsOf(parent, call).ok).toBe(true);
  });

  it("is no finding in a transcript", () => {
    const reader = new ScopeReader();
    expect(reader.readEnrolled(SCOPE)).toBeNull();
    const said = {
      upstream: "elastic",
      method: "GET",
      target: "/elastic/*/_search",
      body: null,
      decision: { entry: 0, operation: OPERATION, ceilings: [{ layer: "agent", entry: 0, operation: OPERATION }] },
    } as unknown as CallSaid;
    expect(reader.readCall(1, "p", said)).toBeNull();
    const limits = { calls: 1, bytes: 1, concurrency: 1, burst: 1, callsPerSecond: 1, units: {} };
    const delegation = { act: "delegate", child: "j", deadline: 1, scope: SCOPE, limits } as unknown as Delegation;
    const parent = { deadline: 1, limits } as unknown as Enrolled;
    const used = { calls: 0, bytes: 0, units: new Sums() };
    expect(new ChildrenReader().delegate(delegation, parent, reader.entries, used)).toBeNull();
  });
});
