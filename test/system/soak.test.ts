// The soak, once and short: what it looks for, and with what, stands in test/soak. `npm run soak -- <minutes>` is the long one.

import { describe, expect, it } from "vitest";
import { chosen } from "../chosen.ts";
import { soak } from "../soak/soak.ts";

const SECONDS = 8;

describe("the soak", () => {
  it("loses nothing, writes nothing twice, and verifies, whatever crashes and fails", async () => {
    const seed = chosen().between(0, 1_000_000_000);
    const said: string[] = [];
    const report = await soak({
      seconds: SECONDS,
      seed,
      slowFsyncMs: 0,
      hangs: false,
      agents: 4,
      largestBytes: 1_600_000,
      say: (line) => said.push(line),
    });
    // With the seed and the folder that was kept.
    expect(report, JSON.stringify(report)).toMatchObject({
      problems: [],
      lost: 0,
      duplicated: 0,
      altered: 0,
      unverifiable: 0,
      unended: 0,
      replaysAccepted: 0,
      ok: true,
    });
    expect(report["crashes"]).toBeGreaterThan(0);
    expect(report["aborts"]).toBeGreaterThan(0);
    expect(report["r2Faults"]).toBeGreaterThan(0);
    expect(report["answeredInFull"]).toBeGreaterThan(20);
  }, 120_000);
});
