// The same keys sign four kinds of token. Each is taken at its own door and at no other, also where it claims all that the other one does.

import { describe, expect, it } from "vitest";
import { readHeldToken } from "../../src/authority/held-token.ts";
import { issueRefreshToken, verifyRefreshToken } from "../../src/authority/refresh-token.ts";
import { DELEGATION_TYPE } from "../../src/delegation/signed.ts";
import { verifyGrant } from "../../src/grant/claims.ts";
import { MANDATE_TYPE, verifyMandateToken } from "../../src/mandate/token.ts";
import { ORIGIN } from "../workerd/config.ts";
import { deployment, SCOPE } from "../workerd/kit.ts";

const NOW_MS = 1_900_000_000_000;
const SECONDS = NOW_MS / 1_000;
const { grantKeys } = deployment;
const REFRESH_TYPE = "portcullis-refresh+jwt";

/** What any of the doors looks for, at once. */
const claims = (aud: unknown) => ({
  iss: ORIGIN,
  aud,
  sub: "human-1",
  client_id: "build-platform",
  jti: "j",
  iat: SECONDS,
  exp: SECONDS + 300,
  cnf: { jkt: "k" },
  authorization_details: SCOPE,
});
const DOORS: readonly [name: string, typ: string, opens: (token: string) => boolean][] = [
  ["a grant's", "at+jwt", (token) => verifyGrant(token, grantKeys, ORIGIN, NOW_MS).ok],
  ["a refresh token's", REFRESH_TYPE, (token) => verifyRefreshToken(token, deployment, NOW_MS).ok],
  ["a mandate's", MANDATE_TYPE, (token) => verifyMandateToken(token, deployment, NOW_MS).ok],
];
const TYPES = ["at+jwt", REFRESH_TYPE, MANDATE_TYPE, DELEGATION_TYPE, "JWT", "dpop+jwt", "oauth-id-jag+jwt"];
const signed = (typ: string, door: string, spoilt: object = {}) =>
  grantKeys.signCompact(typ, { ...claims(door === "a grant's" ? [`${ORIGIN}/github`] : ORIGIN), ...spoilt });

describe.each(DOORS)("%s door", (name, own, opens) => {
  it.each(TYPES)("opens to its own typ alone: %s", (typ) => expect(opens(signed(typ, name))).toBe(typ === own));
  it("opens until the second it says, and to no other spelling of a time", () => {
    const until = (exp: unknown) => opens(signed(own, name, { exp }));
    expect([SECONDS + 1, SECONDS, SECONDS - 1].map(until)).toEqual([true, false, false]);
    expect([undefined, null, String(SECONDS + 300), SECONDS + 0.5, 1e300, [SECONDS + 300]].filter(until)).toEqual([]);
  });
  it.each<[string, object]>([
    ["another gate's", { iss: "https://other.example" }],
    ["this gate's with a slash", { iss: `${ORIGIN}/` }],
    ["nobody's", { iss: undefined }],
    ["of no client", { client_id: undefined }],
    ["of a client that is no text", { client_id: ["build-platform"] }],
  ])("does not open to what is %s, though these keys have signed it", (_name, spoilt) =>
    expect(opens(signed(own, name, spoilt))).toBe(false));
  it("does not open without typ", () => {
    const [, payload, signature] = signed(own, name).split(".");
    const header = Buffer.from(JSON.stringify({ alg: "Ed25519" })).toString("base64url");
    expect(opens(`${header}.${payload}.${signature}`)).toBe(false);
  });
});

it("introspection and revocation know grants and refresh tokens, and nothing else", () => {
  const kinds = TYPES.map((typ) => readHeldToken(signed(typ, typ === "at+jwt" ? "a grant's" : ""), deployment, NOW_MS));
  expect(kinds.map((held) => held?.kind)).toEqual(["access", "refresh", ...Array(TYPES.length - 2).fill(undefined)]);
  const token = { instance: "k", client: "c", expiresAtMs: NOW_MS + 1_000, nowMs: NOW_MS };
  expect(readHeldToken(issueRefreshToken(deployment, token), deployment, NOW_MS)).toMatchObject({ instance: "k" });
});
