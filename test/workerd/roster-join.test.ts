// A roster shard that comes up late: what it hears of switches that were opened before.

import { afterEach, expect, it, vi } from "vitest";
import type { Attributes } from "../../src/control/switch.ts";
import { rosterOf, switchboardOf } from "../../src/objects.ts";
import { deployment } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

it("holds no newcomer for one of before a kill that had been lifted", async () => {
  const board = switchboardOf(deployment);
  const flipped = await board.flip({
    id: crypto.randomUUID(),
    reach: "human",
    target: { human: "newcomer" },
    act: "kill",
    reason: "test",
    by: "admin",
    email: null,
    cause: null,
    untilMs: null,
    idempotencyKey: null,
  });
  if (!flipped.flipped) throw new Error("not flipped");
  await board.lift(flipped.state.switch.id, { by: "admin", email: null, reason: "test" });

  // All that follows within one millisecond.
  vi.spyOn(Date, "now").mockReturnValue(Date.now());
  const attributes: Attributes = {
    instance: "i-new",
    human: "newcomer",
    emailDigest: null,
    groupsAtMs: 1,
    task: "t",
    agent: "triage-bot",
    agentVersion: "1.0.0",
    client: "build-platform",
    upstreams: ["github"],
    ancestors: [],
    mandate: null,
    deadlineMs: Date.now() + 60_000,
  };
  const cold = rosterOf(deployment, 3);
  expect(await cold.enlist(attributes)).toMatchObject({ enlisted: true, closed: [] });
  expect(await cold.confirm("i-new")).toMatchObject({ confirmed: true, closed: [] });
});
