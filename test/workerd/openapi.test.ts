import { createExecutionContext } from "cloudflare:test";
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { admin } from "../../src/admin/admin.ts";
import { openApiDocument } from "../../src/admin/openapi.ts";
import { REACHES } from "../../src/control/switch.ts";
import type { Deployment } from "../../src/deployment.ts";
import { deployment } from "./kit.ts";

const PATH = "/admin/v1/openapi.json";
const { paths, components } = openApiDocument("https://gate.test") as {
  readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly components: {
    readonly schemas: { readonly Flip: { readonly oneOf: readonly { readonly title: string }[] } };
  };
};

describe("the admin's document", () => {
  it("has the routes that the door has, and no other", () => {
    const routes = admin.routes.flatMap(({ method, path }) =>
      method === "ALL" ? [] : [`${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`],
    );
    const described = Object.entries(paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(described.toSorted()).toEqual(routes.toSorted());
    expect(described.length).toBeGreaterThan(5);
  });

  it("has every reach", () => {
    expect(components.schemas.Flip.oneOf.map(({ title }) => title)).toEqual(Object.keys(REACHES));
  });

  it("is not for a break-glass key, which kills and does nothing else", async () => {
    const key = `pbg_${"k".repeat(43)}`;
    const held: Deployment = {
      ...deployment,
      config: {
        ...deployment.config,
        admins: { ...deployment.config.admins, breakGlass: { night: "NIGHT_KEY" } },
      },
      env: { ...deployment.env, NIGHT_KEY: createHash("sha256").update(key).digest("hex") },
    };
    const headers = { authorization: `Bearer ${key}` };
    const refused = await admin.request(PATH, { headers }, { deployment: held }, createExecutionContext());
    expect([refused.status, await refused.json()]).toEqual([
      403,
      expect.objectContaining({ detail: "this needs the role viewer or operator or auditor" }),
    ]);
    const unknown = await admin.request(PATH, { headers }, { deployment }, createExecutionContext());
    expect(unknown.status).toBe(401);
  });
});
