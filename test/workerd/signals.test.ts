// The door of shared signals where something that it needs is out of reach: the transmitter must hear that, and push again.

import { env } from "cloudflare:test";
import { createHash } from "node:crypto";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type Deployment, type Env, parseDeployment } from "../../src/deployment.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { switchboardOf } from "../../src/objects.ts";
import { signals } from "../../src/signals/signals.ts";
import config, { ORIGIN } from "./config.ts";

const ISSUER = "https://signals.test";
const REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const TOKEN = "a-bearer-token";
const digest = createHash("sha256").update(TOKEN).digest("hex");
const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));

let keys: CryptoKeyPair;
let jwk: JsonWebKey;
let count = 0;
let jwksUri: string;
beforeAll(async () => {
  keys = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  jwk = (await crypto.subtle.exportKey("jwk", keys.publicKey)) as JsonWebKey;
});
beforeEach(() => {
  // Keys are known by address, so every test has its own.
  jwksUri = `${ISSUER}/jwks/${count++}`;
  vi.spyOn(globalThis, "fetch").mockImplementation(
    async () => new Response(JSON.stringify({ keys: [{ kty: "EC", crv: "P-256", x: jwk.x, y: jwk.y }] })),
  );
});
afterEach(() => {
  vi.restoreAllMocks();
});

function deploymentWith(bindings: Partial<Env> = {}): Deployment {
  const transmitters = {
    corp: {
      issuer: ISSUER,
      jwksUri,
      audience: "us",
      algorithms: ["ES256" as const],
      identityProvider: "corp",
      authorization: "SIGNALS",
      criticalSubjectMembers: [],
      acts: {},
    },
  };
  return parseDeployment({ ...(env as unknown as Env), SIGNALS: digest, ...bindings }, { ...config, transmitters });
}

async function makeSet(event: string, jti: string = crypto.randomUUID()): Promise<string> {
  const input = `${part({ alg: "ES256", typ: "secevent+jwt" })}.${part({
    iss: ISSUER,
    aud: "us",
    jti,
    iat: Math.floor(Date.now() / 1000),
    sub_id: { format: "iss_sub", iss: "https://idp.test", sub: "ada" },
    events: { [event]: {} },
  })}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, utf8.encode(input));
  return `${input}.${encodeBase64url(new Uint8Array(signature))}`;
}

const push = async (deployment: Deployment, set: string, token = TOKEN): Promise<Response> =>
  signals(
    new Request(`${ORIGIN}/ssf/events/corp`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/secevent+jwt" },
      body: set,
    }),
    deployment,
  );

/** Objects whose every call fails. */
const outOfReach = {
  idFromName: () => ({}),
  get: () => new Proxy({}, { get: () => () => Promise.reject(new Error("out of reach")) }),
} as unknown as DurableObjectNamespace;

const tryAgain = async (answer: Response): Promise<void> => {
  expect([answer.status, answer.headers.get("retry-after"), await answer.text()]).toEqual([503, "1", ""]);
};
const standing = async (jti: string) =>
  (await switchboardOf(deploymentWith()).list(null, 500)).filter(
    ({ switch: sw }) => sw.cause?.kind === "set" && sw.cause.jti === jti,
  );

describe("a security event", () => {
  it("is accepted once the switchboard has its switch, and only then", async () => {
    const jti = crypto.randomUUID();
    const set = await makeSet(REVOKED, jti);
    await tryAgain(await push(deploymentWith({ SWITCHBOARD: outOfReach }), set));
    expect(await standing(jti)).toEqual([]);
    expect((await push(deploymentWith(), set)).status).toBe(202);
    expect(await standing(jti)).toHaveLength(1);
  });

  it("acts though the journal can't be written", async () => {
    const jti = crypto.randomUUID();
    expect((await push(deploymentWith({ JOURNAL: outOfReach }), await makeSet(REVOKED, jti))).status).toBe(202);
    expect(await standing(jti)).toHaveLength(1);
  });

  it("that does nothing is accepted once that is on record", async () => {
    const set = await makeSet("https://signals.example/unheard");
    await tryAgain(await push(deploymentWith({ JOURNAL: outOfReach }), set));
    expect((await push(deploymentWith(), set)).status).toBe(202);
  });

  it("is not refused where the refusal can't be put on record", async () => {
    await tryAgain(await push(deploymentWith({ JOURNAL: outOfReach }), "no SET"));
    expect((await push(deploymentWith(), "no SET")).status).toBe(400);
  });

  it("waits for the transmitter's keys", async () => {
    vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("nobody there"));
    await tryAgain(await push(deploymentWith(), await makeSet(REVOKED)));
  });

  it("of who is nobody asks for no key and no switchboard", async () => {
    const answer = await push(deploymentWith({ SWITCHBOARD: outOfReach }), await makeSet(REVOKED), "another");
    expect(answer.status).toBe(401);
    expect(await answer.json()).toEqual({ err: "authentication_failed", description: "authentication failed" });
    expect(globalThis.fetch).not.toHaveBeenCalled();
  });

  it("has no door where the token's digest is missing or is no digest", () => {
    expect(() => deploymentWith({ SIGNALS: undefined })).toThrow("secret SIGNALS is not set");
    expect(() => deploymentWith({ SIGNALS: TOKEN })).toThrow("secret SIGNALS is not a SHA-256 in hex");
    expect(() => deploymentWith({ SIGNALS: digest.toUpperCase() })).toThrow("secret SIGNALS is not a SHA-256 in hex");
  });
});
