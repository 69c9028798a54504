// Each route of the admin's door, and each role alone: who gets further than the door, and nobody else.

import { createExecutionContext } from "cloudflare:test";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { admin } from "../../src/admin/admin.ts";
import type { Deployment } from "../../src/deployment.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { deployment } from "./kit.ts";

const ROLES = ["viewer", "operator", "auditor", "approver", "break-glass", "nobody"] as const;
const READERS = "viewer operator auditor";
const WHO: Readonly<Record<string, string>> = {
  "POST /admin/v1/switches": "operator break-glass",
  "GET /admin/v1/switches": READERS,
  "GET /admin/v1/switches/:id": READERS,
  "POST /admin/v1/switches/:id/lift": "operator",
  "POST /admin/v1/humans/:human/groups": "operator",
  "GET /admin/v1/instances": READERS,
  "GET /admin/v1/instances/:instance": READERS,
  "GET /admin/v1/quotas/:quota/:key": READERS,
  "GET /admin/v1/segments": "auditor",
  "GET /admin/v1/objects": "auditor",
  "GET /admin/v1/object": "auditor",
  "POST /admin/v1/holds": "auditor",
  "GET /admin/v1/holds": "operator auditor",
  "DELETE /admin/v1/holds/:id": "auditor",
  "POST /admin/v1/erasures": "operator",
  "GET /admin/v1/erasures/:id": "operator auditor",
  "GET /admin/v1/mandates": READERS,
  "DELETE /admin/v1/mandates/:id": "operator",
  "GET /admin/v1/approvals": "auditor approver",
  "GET /admin/v1/approvals/:id": "auditor approver",
  "GET /admin/v1/approvals/:id/body": "auditor approver",
  "POST /admin/v1/approvals/:id/approve": "approver",
  "POST /admin/v1/approvals/:id/deny": "approver",
  "GET /admin/v1/transcripts/:human/:task/:instance/bodies/:seq/:part": "auditor",
  "GET /admin/v1/openapi.json": READERS,
  "GET /admin/v1/transcripts/:human/:task/:instance": "auditor",
};
const routes = admin.routes.flatMap(({ method, path }) => (method === "ALL" ? [] : [`${method} ${path}`]));

const KEY = `pbg_${"k".repeat(43)}`;
const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));
let tokenOf: (group: string) => Promise<string>;
let held: Deployment;

beforeEach(async () => {
  const keys = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  const jwk = (await crypto.subtle.exportKey("jwk", keys.publicKey)) as JsonWebKey;
  const { config } = deployment;
  const corp = { ...config.identityProviders["corp"]!, jwksUri: "https://idp.test/jwks/admin-roles" };
  const roles = { viewer: ["viewer"], operator: ["operator"], auditor: ["auditor"], approver: ["approver"] };
  held = {
    ...deployment,
    config: {
      ...config,
      identityProviders: { corp },
      admins: { ...config.admins, roles, breakGlass: { night: "NIGHT_KEY" } },
    },
    env: { ...deployment.env, NIGHT_KEY: createHash("sha256").update(KEY).digest("hex") },
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async () =>
    Response.json({ keys: [{ kty: "EC", crv: "P-256", x: jwk.x, y: jwk.y }] }),
  );
  const iat = Math.floor(Date.now() / 1_000);
  tokenOf = async (group) => {
    const claims = { iss: corp.issuer, sub: "olga", aud: config.admins.audience, iat, exp: iat + 600, groups: [group] };
    const input = `${part({ alg: "ES256", typ: "JWT" })}.${part(claims)}`;
    const signed = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, utf8.encode(input));
    return `${input}.${encodeBase64url(new Uint8Array(signed))}`;
  };
});
afterEach(() => vi.restoreAllMocks());

it("no route is left out", () => expect(Object.keys(WHO).toSorted()).toEqual(routes.toSorted()));

it("each route lets its roles in, and refuses each of the others", async () => {
  const allowed: Record<string, string> = {};
  const tokens = new Map(
    await Promise.all(ROLES.map(async (role) => [role, role === "break-glass" ? KEY : await tokenOf(role)] as const)),
  );
  for (const route of routes) {
    const [method = "", path = ""] = route.split(" ");
    const letIn = await Promise.all(
      ROLES.map(async (role) => {
        const answer = await admin.request(
          path.replaceAll(/:\w+/g, "0"),
          {
            method,
            headers: { authorization: `Bearer ${tokens.get(role)}` },
            ...(method === "GET" ? {} : { body: "{}" }),
          },
          { deployment: held },
          createExecutionContext(),
        );
        const text = await answer.text();
        expect(answer.status, `${route}, ${role}: ${text}`).not.toBe(401);
        if (answer.status !== 403) return [role];
        expect(text, `${route}, ${role}`).toContain("this needs the role");
        return [];
      }),
    );
    allowed[route] = letIn.flat().join(" ");
  }
  expect(allowed).toEqual(WHO);
});
