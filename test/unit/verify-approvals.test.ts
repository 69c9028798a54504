import { describe, expect, it } from "vitest";
import { verifyTranscripts } from "../../src/transcript/verify.ts";
import { ApprovalReader } from "../../src/transcript/verify-approvals.ts";
import { DEADLINE_MS, findingsOf, ISSUER, keysOf, newRing, objectsOf, writerOf } from "./transcript-kit.ts";

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

describe("what an approval is held to", () => {
  const body = { digest: "salted", bytes: 3, mediaType: "text/plain", coding: "identity" };
  const it_ = { upstream: "bank", method: "POST", target: "/bank/payments", body };
  const asked = { approval: "a", state: "asked", human: "ada", at: 10, expires: 100, notDelegator: true, ...it_ };
  const approved = { approval: "a", state: "approved", human: "ada", by: "olga", at: 20, validUntil: 50 };
  const call = { approval: "a", approver: "olga", at: 30, human: "ada", ...it_, body: { ...body, digest: "anew" } };
  const found = (change: { asked?: object; approved?: object; call?: object } = {}): (string | null)[] => {
    const reader = new ApprovalReader();
    return [
      reader.read({ ...asked, ...change.asked }),
      reader.read({ ...approved, ...change.approved }),
      reader.readCall({ ...call, ...change.call }),
    ];
  };

  it("is the very call that was asked for, by whom it says, in time", () => {
    expect(found()).toEqual([null, null, null]);
    expect(found({ asked: { body: null }, call: { body: null } })).toEqual([null, null, null]);
    expect(found({ asked: { notDelegator: false }, approved: { by: "ada" }, call: { approver: "ada" } })[1]).toBeNull();
  });

  it.each([
    [{ target: "/bank/payments?to=me" }, "was given to another call: its target"],
    [{ method: "DELETE" }, "was given to another call: its method"],
    [{ upstream: "other" }, "was given to another call: its upstream"],
    [{ body: { ...body, bytes: 4 } }, "was given to another call: its body's bytes"],
    [{ body: { ...body, mediaType: "text/html" } }, "was given to another call: its body's mediaType"],
    [{ body: null }, "was given to another call: its body's bytes"],
    [{ approver: "grace" }, "was given by somebody else than it says"],
    [{ approver: undefined }, "was given by somebody else than it says"],
    [{ at: 50 }, "is used when its time was over"],
  ])("a call with %j is a finding", (change, problem) => {
    expect(found({ call: change })).toEqual([null, null, `approval a ${problem}`]);
  });

  it.each(["approved", "denied"])("%s by the delegator, or too late, is a finding", (state) => {
    expect(found({ approved: { state, by: "ada" } })[1]).toBe(`approval a is ${state} by whom the agent acts for`);
    expect(found({ approved: { state, at: 100 } })[1]).toBe(`approval a is ${state} when its time was over`);
  });
});

describe("a transcript with approvals", async () => {
  const ring = await newRing("k");
  const said = { approval: "a", upstream: "bank", method: "POST", target: "/bank/payments", body: null };
  const verify = async (call: object, decided: object | null = { state: "approved", by: "olga" }) => {
    const writer = writerOf({ human: "h", task: "t", instance: "i" }, ring);
    writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
    writer.record("approval", { ...said, state: "asked", notDelegator: true });
    if (decided !== null) writer.record("approval", { approval: "a", ...decided });
    writer.record("call", { ...said, approver: "olga", ...call });
    writer.record("answer", { call: writer.seq - 1, body: null });
    writer.record("ended");
    writer.seal(true);
    const nowMs = DEADLINE_MS + 600_000;
    const report = await verifyTranscripts(objectsOf(writer.objects), { keys: keysOf(ring), issuer: ISSUER, nowMs });
    return findingsOf(report).map(({ problem }) => problem);
  };

  it("verifies, and each slip of the gate that sealed it is a finding", async () => {
    expect(await verify({})).toEqual([]);
    expect(await verify({ target: "/bank/transfers" })).toEqual(["approval a was given to another call: its target"]);
    expect(await verify({ approver: "grace" })).toEqual(["approval a was given by somebody else than it says"]);
    expect(await verify({}, null)).toEqual(["approval a is used, and was asked before"]);
    expect(await verify({}, { state: "denied", by: "olga" })).toEqual(["approval a is used, and was denied before"]);
    expect(await verify({ approver: "h" }, { state: "approved", by: "h" })).toEqual([
      "approval a is approved by whom the agent acts for",
    ]);
    expect(await verify({ approval: "b" })).toEqual([
      "approval b is used, and was never asked for before",
      "approval a is open, and the transcript ended",
    ]);
  });
});
