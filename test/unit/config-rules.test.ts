import { describe, expect, it } from "vitest";
import { ConfigError, type ConfigSource, defineConfig } from "../../src/config/define.ts";
import config from "../workerd/config.ts";

const RIGHT = { signal: "refusals", threshold: 5, windowSeconds: 60, mode: "observe" };

/** The mistakes of a configuration that is right but for its rules. */
function mistakes(rules: unknown): string[] {
  try {
    // What a parsed configuration says of entries is not what one writes; none are needed here.
    const agents = { bot: { versions: { "1.0.0": { model: "m", promptDigest: "d" } }, ceiling: [] } };
    const entitlements = { groups: {} };
    const source = { ...config, agents, platforms: {}, upstreams: {}, entitlements, boundaries: [], quotas: {}, rules };
    defineConfig(source as unknown as ConfigSource);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
}

describe("rules in the configuration", () => {
  it("need not be there", () => expect(mistakes(undefined)).toEqual([]));
  it("pass when right", () =>
    expect(mistakes({ "a-rule": RIGHT, row: { signal: "refusals-in-a-row", threshold: 3, mode: "enforce" } })).toEqual(
      [],
    ));

  it.each<[name: string, change: object, expected: string | RegExp]>([
    ["a signal nobody knows", { signal: "mood" }, /^rules\.r\.signal: Invalid option/],
    ["no mode", { mode: undefined }, /^rules\.r\.mode: Invalid option/],
    ["a mode nobody knows", { mode: "maybe" }, /^rules\.r\.mode: Invalid option/],
    ["a threshold of nothing", { threshold: 0 }, /^rules\.r\.threshold: Too small/],
    ["a threshold that is no number", { threshold: "5" }, /^rules\.r\.threshold: Invalid input/],
    ["half an event", { threshold: 2.5 }, "rules.r.threshold: a whole number of events"],
    [
      "more than the budget",
      { signal: "calls-burn", threshold: 1.1 },
      "rules.r.threshold: a share of the budget: above 0, at most 1",
    ],
    [
      "no window",
      { windowSeconds: undefined },
      "rules.r.windowSeconds: needed: refusals is counted in a window of 1 to 3600 seconds",
    ],
    ["a window beyond an hour", { windowSeconds: 3_601 }, /^rules\.r\.windowSeconds: Too big/],
    ["a window of no time", { windowSeconds: 0 }, /^rules\.r\.windowSeconds: Too small/],
    [
      "a row with a window",
      { signal: "refusals-in-a-row" },
      "rules.r.windowSeconds: not with refusals-in-a-row: a row ends with a call, not with time",
    ],
    ["an act that opens", { act: "resume" }, /^rules\.r\.act: Invalid option/],
    ["a reach of everything", { reach: "everything" }, /^rules\.r\.reach: Invalid option/],
    ["a kill for a time", { act: "kill", untilSeconds: 9 }, "rules.r.untilSeconds: not with kill, which is final"],
    [
      "an agent nobody knows",
      { agents: ["bot", "constructor"] },
      'rules.r.agents.1: no agent "constructor" under agents',
    ],
    ["no agent at all", { agents: [] }, /^rules\.r\.agents: Too small/],
    ["a field nobody knows", { window: 60 }, /^rules\.r: Unrecognized key: "window"/],
  ])("are refused by path: %s", (_name, change, expected) => {
    const found = mistakes({ r: { ...RIGHT, ...change } });
    expect(found).toEqual([typeof expected === "string" ? expected : expect.stringMatching(expected)]);
  });

  it("have names that a record can carry", () => {
    expect(mistakes({ "A rule": RIGHT })).toEqual([expect.stringContaining("rules.A rule")]);
  });
});
