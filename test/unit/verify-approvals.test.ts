import { describe, expect, it } from "vitest";
import { ApprovalReader } from "../../src/transcript/verify-approvals.ts";

/** What is wrong with the last of these states; `used` is a call's. */
function last(...states: string[]): string | null {
  const reader = new ApprovalReader();
  let found: string | null = null;
  for (const state of states)
    found = state === "used" ? reader.readCall({ approval: "a" }) : reader.read({ approval: "a", state });
  return found;
}

describe("states of one request for approval", () => {
  it.each([
    ["asked"],
    ["asked", "approved"],
    ["asked", "approved", "used"],
    ["asked", "approved", "expired"],
    ["asked", "approved", "cancelled"],
    ["asked", "denied"],
    ["asked", "expired"],
    ["asked", "cancelled"],
  ])("%s %s %s is lawful", (...states) => {
    expect(last(...states.filter((state) => typeof state === "string"))).toBeNull();
  });

  it.each([
    ["approval a is used, and was never asked for before", ["used"]],
    ["approval a is used, and was asked before", ["asked", "used"]],
    ["approval a is used, and was used before", ["asked", "approved", "used", "used"]],
    ["approval a is used, and was denied before", ["asked", "denied", "used"]],
    ["approval a is used, and was expired before", ["asked", "approved", "expired", "used"]],
    ["approval a is used, and was cancelled before", ["asked", "approved", "cancelled", "used"]],
    ["approval a is approved, and was never asked for before", ["approved"]],
    ["approval a is approved, and was denied before", ["asked", "denied", "approved"]],
    ["approval a is approved, and was used before", ["asked", "approved", "used", "approved"]],
    ["approval a is asked, and was asked before", ["asked", "asked"]],
    ["not a record of type approval", ["asked", "given"]],
  ])("%s", (problem, states) => {
    expect(last(...states)).toBe(problem);
  });

  it("a call without one says nothing; one that names no id is a finding", () => {
    expect(new ApprovalReader().readCall({})).toBeNull();
    expect(new ApprovalReader().readCall({ approval: 1 })).toBe("names an approval that is none");
  });
});
