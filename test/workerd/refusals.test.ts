import { exports } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { RECORDED_PER_SECOND } from "../../src/authority/refusal-gauge.ts";
import { journalOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import { deployment, journalLines, type Line } from "./kit.ts";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const FLOOD = 300;
const doors: [door: "admin" | "authority", ask: () => Promise<Response>, status: number][] = [
  ["admin", () => exports.default.fetch(new Request(`${ORIGIN}/admin/v1/switches`, { method: "POST" })), 401],
  [
    "authority",
    () =>
      exports.default.fetch(
        new Request(`${ORIGIN}/oauth/introspect`, { method: "POST", body: new URLSearchParams({ token: "x" }) }),
      ),
    401,
  ],
];

describe("a flood of who has not authenticated", () => {
  it.each(doors)("asks few objects, and none that an act needs: %s", async (door, ask, status) => {
    const startedAtMs = Date.now();
    const answers = await Promise.all(Array.from({ length: FLOOD }, ask));
    const seconds = Math.floor((Date.now() - startedAtMs) / 1_000) + 1;
    expect(answers.map((answer) => answer.status)).toEqual(Array<number>(FLOOD).fill(status));
    const bodies = new Set(await Promise.all(answers.map((answer) => answer.text())));
    expect(bodies.size).toBe(1);
    expect(await journalLines(door)).toEqual([]);
    const recorded = await journalLines(`${door}-refused`);
    expect(recorded.length).toBeGreaterThan(0);
    expect(recorded.length).toBeLessThanOrEqual(RECORDED_PER_SECOND * (seconds + 1));

    // The next one that goes carries the others.
    await pause(1_100);
    expect((await ask()).status).toBe(status);
    const all = await journalLines(`${door}-refused`);
    const suppressed = all.reduce((sum, line) => sum + ((line["suppressed"] as number | undefined) ?? 0), 0);
    expect(all.length + suppressed).toBe(FLOOD + 1);
    expect(all[0]).toMatchObject({ type: "refused", journal: expect.stringContaining(`${door}-refused.`) });
  });
});

describe("a journal", () => {
  it("keeps what its doors had counted, though it only counts the refusal that says so", async () => {
    const nowMs = Date.now();
    const journal = journalOf(deployment, "authority-refused", nowMs + 86_400_000 * 3);
    const append = (suppressed: number) =>
      journal.append({ type: "refused", deployment: "test", fields: { suppressed } });
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs);
    for (let i = 0; i < 120; i++) await append(1);
    await append(10);
    await append(100);
    clock.mockReturnValue(nowMs + 60_000);
    await append(1_000);
    clock.mockRestore();
    const lines = (await journal.read(119, 10)).map((line) => JSON.parse(line) as Line);
    expect(lines.map(({ counted, suppressed }) => [counted, suppressed])).toEqual([
      [undefined, 1],
      [2, 110],
      [undefined, 1_000],
    ]);
  });
});
