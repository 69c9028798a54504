import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from "jose";
import { describe, expect, it } from "vitest";
import { delegationClaims, signDelegation } from "../../src/delegation/signed.ts";
import { verifyGrant } from "../../src/grant/claims.ts";
import type { DelegationFacts } from "../../src/instance/contract.ts";
import { verifyMandateToken } from "../../src/mandate/token.ts";
import { ORIGIN } from "../workerd/config.ts";
import { deployment } from "../workerd/kit.ts";

const FACTS: DelegationFacts = {
  human: "human-1",
  instance: "instance-3",
  agent: "child-bot",
  agentVersion: "1.0.0",
  client: "build-platform",
  chain: [{ client: "build-platform", agent: "triage-bot" }],
  task: "build-platform_t1",
  mandate: null,
};
const NOW_MS = 1_900_000_000_500;
const OF = { audience: "https://upstream.test", txn: "instance-3:7", nowMs: NOW_MS };

describe("a signed delegation", () => {
  it("says who acts and for whom, the one who acts outermost (RFC 8693 §4.1)", () => {
    const root = { client: "build-platform", agent: "root-bot", agentVersion: "3.0.0", instance: "instance-1" };
    const parent = { client: "build-platform", agent: "planner-bot", agentVersion: "2.0.0", instance: "instance-2" };
    const itself = { client: "build-platform", agent: "child-bot", agentVersion: "1.0.0", instance: "instance-3" };
    const chain = [...FACTS.chain, root, parent, itself];
    const claims = delegationClaims(ORIGIN, { ...FACTS, chain }, { ...OF, jti: "j" });
    expect(claims).toEqual({
      iss: ORIGIN,
      aud: "https://upstream.test",
      sub: "human-1",
      act: {
        sub: "instance-3",
        agent: "child-bot",
        agent_version: "1.0.0",
        client_id: "build-platform",
        act: {
          sub: "instance-2",
          agent: "planner-bot",
          agent_version: "2.0.0",
          client_id: "build-platform",
          act: { sub: "instance-1", agent: "root-bot", agent_version: "3.0.0", client_id: "build-platform" },
        },
      },
      task: "build-platform_t1",
      txn: "instance-3:7",
      jti: "j",
      iat: 1_900_000_000,
      exp: 1_900_000_060,
    });
  });

  it("names the mandate, where nobody was there to delegate", () => {
    expect(delegationClaims(ORIGIN, { ...FACTS, mandate: "m-1" }, OF).mandate).toBe("m-1");
  });

  it("verifies with plain jose and our published keys, for its audience and its minute alone", async () => {
    const token = signDelegation(deployment, FACTS, OF);
    const keys = createLocalJWKSet(deployment.grantKeys.jwks as unknown as JSONWebKeySet);
    const right = {
      issuer: ORIGIN,
      audience: "https://upstream.test",
      typ: "portcullis-delegation+jwt",
      algorithms: ["Ed25519"],
      currentDate: new Date(NOW_MS),
    };
    const { payload } = await jwtVerify(token, keys, right);
    expect(payload).toMatchObject({ sub: "human-1", txn: "instance-3:7" });
    const other = jwtVerify(token, keys, { ...right, audience: "https://other.test" });
    await expect(other).rejects.toMatchObject({ code: "ERR_JWT_CLAIM_VALIDATION_FAILED", claim: "aud" });
    const late = jwtVerify(token, keys, { ...right, currentDate: new Date(NOW_MS + 60_000) });
    await expect(late).rejects.toMatchObject({ code: "ERR_JWT_EXPIRED" });
  });

  it("is another one each time", () => {
    expect(delegationClaims(ORIGIN, FACTS, OF).jti).not.toBe(delegationClaims(ORIGIN, FACTS, OF).jti);
  });

  it("is neither a grant nor a mandate, though the same keys sign it", () => {
    const token = signDelegation(deployment, FACTS, OF);
    const asGrant = verifyGrant(token, deployment.grantKeys, ORIGIN, NOW_MS);
    expect(asGrant).toEqual({ ok: false, error: 'typ is not "at+jwt"' });
    const asMandate = verifyMandateToken(token, deployment, NOW_MS);
    expect(asMandate).toEqual({ ok: false, error: 'typ is not "portcullis-mandate+jwt"' });
  });
});
