import { expect, it } from "vitest";
import { receipt } from "../../scripts/cli/gate-answers.ts";
import { receiptLines } from "../../scripts/cli/receipt-lines.ts";
import { receiptOf } from "../../src/control/receipt.ts";

it("a receipt that has not heard of all shards does not read as if nobody had been at work", () => {
  const lines = (unheardShards: number): string => {
    const state = {
      switch: {
        id: "s",
        reach: "everything",
        target: {},
        act: "kill",
        reason: "test",
        by: "admin",
        cause: null,
        atMs: 1_000,
        untilMs: null,
      },
      status: unheardShards > 0 ? "pending" : "done",
      unheardShards,
      reached: [],
      idle: 3,
      opened: null,
      liftAskedBy: [],
    } as const;
    const answer = { ...receiptOf(state, "https://gate.example.com"), jws: "" };
    return receiptLines(receipt.parse(answer), 2_000).join("\n");
  };
  expect(lines(0)).toContain("nobody was at work");
  expect(lines(0)).not.toContain("roster shard");
  expect(lines(2)).not.toContain("nobody was at work");
  expect(lines(2)).toContain("not answered yet: 2 roster shards, whose instances are not counted here");
});
