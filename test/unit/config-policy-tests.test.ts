import { describe, expect, it } from "vitest";
import { definePolicyTests, type PolicyCaseSource, PolicyTestsError } from "../../src/config/policy-tests.ts";

const CALL = { name: "c", call: "GET /github/x", groups: ["g"], agent: "bot", expect: "allowed" };
const REQUEST = { name: "r", request: { groups: ["g"], agent: "bot", authorization_details: [] }, expect: "granted" };

function mistakes(...cases: readonly object[]): string[] {
  try {
    definePolicyTests(cases as unknown as readonly PolicyCaseSource[]);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(PolicyTestsError);
    return (error as Error).message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
}

describe("a table of policy tests", () => {
  it("passes when right", () => expect(mistakes(CALL, REQUEST)).toEqual([]));

  it.each<[name: string, cases: readonly object[], expected: string | RegExp]>([
    ["nothing at all", [], "(top): holds no case"],
    ["two of one name", [CALL, { ...REQUEST, name: "c" }], "[1].name: another case has it"],
    ["no groups", [{ ...CALL, groups: undefined }], /^\[0\]\.groups: Invalid input/],
    [
      "a call without a method",
      [{ ...CALL, call: "/github/x" }],
      "[0].call: a method in upper case, a space, and the path at the gate",
    ],
    ["a field that nobody knows", [{ ...CALL, expects: "allowed" }], /^\[0\]: Unrecognized key: "expects"/],
    ["an expectation of a request for a call", [{ ...CALL, expect: "granted" }], /^\[0\]\.expect: Invalid option/],
    [
      "an operation of what is refused",
      [{ ...CALL, expect: "refused", operation: "GET /x" }],
      "[0].operation: only of a call that is not refused",
    ],
    [
      "an entry of what is refused",
      [{ ...CALL, expect: "refused", entry: "boundaries[0]" }],
      "[0].entry: only of a call that is not refused",
    ],
    ["a layer without entries", [{ ...CALL, layer: "route", operation: "GET /x" }], "[0].layer: has no entries"],
    ["a layer that says nothing", [{ ...CALL, layer: "agent" }], /^\[0\]\.layer: all layers allow what is not refused/],
    ["a layer that nobody knows", [{ ...CALL, expect: "refused", layer: "mood" }], /^\[0\]\.layer: Invalid option/],
    ["a layer of what is granted", [{ ...REQUEST, layer: "agent" }], "[0].layer: only of a request that is refused"],
    ["an entry of what is granted", [{ ...REQUEST, entry: 0 }], "[0].entry: only of a request that is refused"],
    [
      "a request without a scope",
      [{ ...REQUEST, request: { groups: [], agent: "bot" } }],
      /^\[0\]\.request\.authorization_details: /,
    ],
  ])("is refused by path: %s", (_name, cases, expected) => {
    expect(mistakes(...cases)).toEqual([typeof expected === "string" ? expected : expect.stringMatching(expected)]);
  });
});
