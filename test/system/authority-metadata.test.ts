// What the authority says of itself (RFC 8414, 9728), and how it asks the identity provider for keys.

import { createServer, type RequestListener, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { type Answer, type Harness, makeKey, startHarness } from "./harness.ts";

let h: Harness;
let jwks: Server;
let asked: string[] = [];
let answer: RequestListener;
/** What the real provider publishes. */
let keys: string;

beforeAll(async () => {
  jwks = createServer((incoming, response) => {
    asked.push(incoming.url ?? "");
    answer(incoming, response);
  });
  const port = await listenOnLoopback(jwks, 0);
  h = await startHarness({ addresses: { jwksUri: `http://127.0.0.1:${port}/jwks` } });
  keys = await (await fetch(h.idp.jwksUri)).text();
});
afterAll(async () => {
  await h.close();
  await closeServer(jwks);
});

const AS = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

describe("metadata", () => {
  it.each(AS)("of the authorization server (RFC 8414): %s", async (path) => {
    const { status, json, headers } = await h.send(path, {});
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("application/json");
    expect(json).toEqual({
      issuer: h.origin,
      token_endpoint: `${h.origin}/oauth/token`,
      revocation_endpoint: `${h.origin}/oauth/revoke`,
      introspection_endpoint: `${h.origin}/oauth/introspect`,
      jwks_uri: `${h.origin}/.well-known/jwks.json`,
      grant_types_supported: ["urn:ietf:params:oauth:grant-type:token-exchange", "refresh_token"],
      response_types_supported: [],
      token_endpoint_auth_methods_supported: ["private_key_jwt", "none"],
      token_endpoint_auth_signing_alg_values_supported: ["ES256", "Ed25519"],
      revocation_endpoint_auth_methods_supported: ["private_key_jwt", "none"],
      revocation_endpoint_auth_signing_alg_values_supported: ["ES256", "Ed25519"],
      introspection_endpoint_auth_methods_supported: ["private_key_jwt"],
      introspection_endpoint_auth_signing_alg_values_supported: ["ES256", "Ed25519"],
      dpop_signing_alg_values_supported: ["ES256", "Ed25519"],
      authorization_details_types_supported: ["http"],
    });
  });

  it("of the keys: public halves only", async () => {
    const Ed25519 = ["alg", "crv", "kid", "kty", "use", "x"];
    const members = { "/.well-known/jwks.json": Ed25519, "/.well-known/portcullis-seal-keys.json": [...Ed25519, "y"] };
    for (const [path, expected] of Object.entries(members)) {
      const { json } = await h.send(path, {});
      for (const key of json["keys"] as object[]) expect(Object.keys(key).sort()).toEqual(expected);
    }
  });

  const resource = async (path: string) => {
    const { status, json, headers } = await h.send(`/.well-known/oauth-protected-resource${path}`, {});
    const { resource, ...rest } = json;
    return {
      status,
      resource,
      rest,
      headers: [...headers].filter(([name]) => name !== "date" && name !== "content-length"),
    };
  };

  it("of a protected resource (RFC 9728) is the same for an upstream and for one that was never built", async () => {
    const [whole, github, never] = [await resource(""), await resource("/github"), await resource("/never-built")];
    expect(whole.resource).toBe(h.origin);
    expect(github.resource).toBe(`${h.origin}/github`);
    expect(never.resource).toBe(`${h.origin}/never-built`);
    expect(github.rest).toEqual({
      authorization_servers: [h.origin],
      bearer_methods_supported: ["header"],
      authorization_details_types_supported: ["http"],
      dpop_bound_access_tokens_required: true,
      dpop_signing_alg_values_supported: ["ES256", "Ed25519"],
      jwks_uri: `${h.origin}/.well-known/jwks.json`,
    });
    expect(never).toEqual({ ...github, resource: never.resource });
    expect(whole).toEqual({ ...github, resource: whole.resource });
  });

  it.each([
    "/GitHub",
    "/1github",
    "/git_hub",
    `/${"g".repeat(32)}`,
    "/github/repos",
    "/github/",
    "/%2e%2e",
    "/git%20hub",
    "/",
  ])("is not for what no upstream could be called: %s", async (path) => {
    const { status, text } = await h.send(`/.well-known/oauth-protected-resource${path}`, {});
    expect([status, text]).toEqual([404, '{"type":"about:blank","title":"Not Found","status":404}']);
  });

  it.each([
    ...AS,
    "/.well-known/oauth-protected-resource/github",
    "/.well-known/jwks.json",
  ])("does not repeat a host that the request made up: %s", async (path) => {
    const told = (headers: Record<string, string>) =>
      new Promise<string>((resolve, reject) => {
        const sent = request(`${h.origin}${path}`, { headers }, (response) => {
          let text = "";
          response.on("data", (data: Buffer) => {
            text += data.toString();
          });
          response.on("end", () => resolve(text));
        });
        sent.on("error", reject);
        sent.end();
      });
    const plain = await told({});
    expect(plain).toContain(path.includes("jwks") ? "Ed25519" : h.origin);
    for (const evil of [
      { host: "evil.example" },
      { "x-forwarded-host": "evil.example", "x-forwarded-proto": "https" },
      { forwarded: "host=evil.example;proto=https" },
    ])
      expect(await told(evil)).toBe(plain);
  });

  it("is read with GET alone", async () => {
    for (const path of AS) expect((await h.send(path, { method: "POST" })).status).toBe(404);
  });
});

describe("the identity provider's keys", () => {
  const said = ({ status, json }: Answer) =>
    json["error"] === undefined ? "granted" : `${status} ${json["error"]}: ${json["error_description"]}`;
  const UNREAD = "503 temporarily_unavailable: subject_token: the provider's keys could not be read";
  /** After a failure the provider is left alone for a second. */
  const pause = () => new Promise((resolve) => setTimeout(resolve, 1_050));
  const elsewhere = () => `http://127.0.0.1:${(jwks.address() as AddressInfo).port}/elsewhere`;

  const bad: [name: string, hostile: RequestListener][] = [
    [
      "a redirect, though right keys lie there",
      (incoming, response) => {
        if (incoming.url === "/elsewhere") response.end(keys);
        else response.writeHead(302, { location: elsewhere() }).end(keys);
      },
    ],
    ["an error with right keys", (_, response) => void response.writeHead(500).end(keys)],
    ["nothing but HTML", (_, response) => void response.end("<!doctype html>")],
    ["right keys behind 300 kB of space", (_, response) => void response.end(" ".repeat(300_000) + keys)],
    ["a connection that breaks", (incoming) => void incoming.socket.destroy()],
  ];
  it.each(bad)("are not taken from %s", async (_name, hostile) => {
    answer = hostile;
    asked = [];
    expect(said(await h.exchange())).toBe(UNREAD);
    // Not asked again for every request while it fails.
    expect(said(await h.exchange())).toBe(UNREAD);
    expect(asked).toEqual(["/jwks"]);
    await pause();
  });

  it("are not waited for longer than five seconds, and an endless answer is cut", async () => {
    let cut = false;
    asked = [];
    answer = (incoming, response) => {
      response.write('{"keys":[');
      const timer = setInterval(() => response.write(" "), 100);
      incoming.socket.once("close", () => {
        cut = true;
        clearInterval(timer);
      });
    };
    const startedAtMs = Date.now();
    expect(said(await h.exchange())).toBe(UNREAD);
    expect(Date.now() - startedAtMs).toBeGreaterThan(4_500);
    expect(Date.now() - startedAtMs).toBeLessThan(20_000);
    await expect.poll(() => cut, { timeout: 10_000 }).toBe(true);
  });

  it("come, though the client for whom they were asked has left", async () => {
    asked = [];
    let release = () => {};
    answer = (_, response) => {
      release = () => void response.end(keys);
    };
    const leave = new AbortController();
    const form = new URLSearchParams(h.exchangeForm()).toString();
    const left = fetch(`${h.origin}/oauth/token`, {
      method: "POST",
      body: form,
      headers: { "content-type": "application/x-www-form-urlencoded", DPoP: h.proof(makeKey()) },
      signal: leave.signal,
    });
    left.catch(() => {});
    while (asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    leave.abort();
    await new Promise((resolve) => setTimeout(resolve, 300));
    release();
    await new Promise((resolve) => setTimeout(resolve, 100));
    answer = (_, response) => void response.writeHead(500).end();
    expect(said(await h.exchange())).toBe("granted");
    expect(asked).toHaveLength(1);
  });

  it("are asked for at most once for a flood of unknown ones, and known ones go on", async () => {
    asked = [];
    answer = (_, response) => void response.end(keys);
    const NO_KEY = "400 invalid_request: subject_token: the signature: ERR_JWKS_NO_MATCHING_KEY";
    const flood = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        h.exchange({ form: { subject_token: h.idToken({}, { kid: `unknown-${i}` }, makeKey()) } }),
      ),
    );
    expect(new Set(flood.map(said))).toEqual(new Set([NO_KEY]));
    expect(asked.length).toBeLessThanOrEqual(1);
    expect(said(await h.exchange())).toBe("granted");
  });
});
