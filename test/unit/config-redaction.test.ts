import { describe, expect, it } from "vitest";
import { redactionRules } from "../../src/config/redaction.ts";

const RIGHT = { name: "cards", in: "both", fields: ["/card"] };
/** The faults of one rule with this change, by path. */
const faults = (change: object, ...more: object[]): string[] => {
  const parsed = redactionRules.safeParse([{ ...RIGHT, ...change }, ...more]);
  return parsed.success ? [] : parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
};
const POINTER = 'a JSON pointer (RFC 6901) of at most 256 characters, "*" for any member or element';
const NAME = "a lower-case name of at most 63 letters, digits and dashes";

describe("redaction rules", () => {
  it.each<[string, object]>([
    ["as they are", {}],
    ["the whole body", { fields: [""] }],
    ["a pointer of every shape", { fields: ["/a~0b/c~1d/0/*//"] }],
    ["headers and a query alone", { fields: undefined, headers: ["X-Key"], query: ["token"] }],
    ["operations", { operations: ["POST /v1/charges", "GET /v1/{+rest}"] }],
  ])("take %s", (_, change) => expect(faults(change)).toEqual([]));

  it.each<[string, object, string[]]>([
    ["no slash at the beginning", { fields: ["card"] }, [`0.fields.0: ${POINTER}`]],
    ["a tilde that escapes nothing", { fields: ["/a", "/a~2"] }, [`0.fields.1: ${POINTER}`]],
    ["a tilde at the end", { fields: ["/a~"] }, [`0.fields.0: ${POINTER}`]],
    ["a pointer one too long", { fields: [`/${"a".repeat(256)}`] }, [`0.fields.0: ${POINTER}`]],
    ["nothing to redact", { fields: undefined }, ["0: a rule that redacts nothing: give fields, headers or query"]],
    ["an unknown key", { field: ["/a"] }, ['0: Unrecognized key: "field"']],
    ["a name that could end its marker", { name: "a]" }, [`0.name: ${NAME}`]],
    ["half a character", { query: ["\ud83d"] }, ["0.query.0: a name that is Unicode"]],
    ["no header name", { headers: ["a b"] }, ["0.headers.0: a header name"]],
    [
      "a header that frames",
      { headers: ["Content-Type"] },
      ["0.headers.0: a header that says what the recorded bytes are"],
    ],
    [
      "an operation in another language",
      { operations: ["/v1"] },
      ["0.operations.0: must be a method in upper case, a space and a path"],
    ],
  ])("refuse %s", (_, change, expected) => expect(faults(change)).toEqual(expected));

  it.each(["fields", "headers", "query", "operations"])("refuse an empty list of %s", (list) => {
    expect(faults({ [list]: [] })[0]).toMatch(new RegExp(`^0\\.${list}: Too small`));
  });
  it("refuse another direction, and a name given twice", () => {
    expect(faults({ in: "answers" })[0]).toMatch(/^0\.in: /);
    expect(faults({}, RIGHT)).toEqual(["1.name: the name of another rule of this upstream"]);
  });
});
