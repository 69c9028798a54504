import { describe, expect, it } from "vitest";
import type { Config } from "../../src/config/define.ts";
import { redactionRules } from "../../src/config/redaction.ts";
import { redactionFor } from "../../src/gate/call-redaction.ts";

const configWith = (...operations: string[]): Config => {
  const redact = redactionRules.parse([{ name: "r", in: "both", fields: ["/password"], operations }]);
  return { upstreams: { vault: { redact } } } as unknown as Config;
};
const concerns = (operation: string, method: string, path: string): boolean => {
  const call = { upstream: "vault", method, segments: path.slice(1).split("/"), query: [] };
  return redactionFor(configWith(operation), "vault", call) !== null;
};

/** A grant may be wider than a rule: what an upstream may take for the operation is not recorded in the clear. */
describe("a rule for an operation", () => {
  it.each([
    ["POST /v1/login", "POST", "/v1/login"],
    ["POST /v1/login", "POST", "/v1/login/"],
    ["POST /v1/login/", "POST", "/v1/login"],
    ["POST /v1/login", "POST", "/v1/Login"],
    ["POST /v1/Login", "POST", "/V1/login"],
    ["POST /v1/users/{user}", "POST", "/v1/Users/Ada/"],
    ["POST /v1/{+rest}", "POST", "/v1/a/b/"],
    ["GET /v1/login", "HEAD", "/v1/login/"],
    ["POST /v1/login", "POST", "/v1/login;jsessionid=1"],
  ])("%s concerns %s %s", (operation, method, path) => expect(concerns(operation, method, path)).toBe(true));

  it.each([
    ["POST /v1/login", "GET", "/v1/login"],
    ["POST /v1/login", "POST", "/v1/logins"],
    ["POST /v1/login", "POST", "/v1/login/x"],
    ["POST /v1/users/{user}", "POST", "/v1/users/"],
    ["POST /v1/users/{user}", "POST", "/v1/users"],
  ])("%s does not concern %s %s", (operation, method, path) => expect(concerns(operation, method, path)).toBe(false));

  it("concerns a path whose slash was encoded, as one segment and as two", () => {
    const call = { upstream: "vault", method: "POST", segments: ["v1", "users/ada"], query: [] };
    for (const operation of ["POST /v1/users/{user}", "POST /v1/{path}"])
      expect(redactionFor(configWith(operation), "vault", call)).not.toBeNull();
  });
});
