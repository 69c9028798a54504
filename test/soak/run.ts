import { parseArgs } from "node:util";
import { soak } from "./soak.ts";

/** `npm run soak -- <minutes> [--seed <n>] [--slow-fsync <ms>] [--agents <n>] [--largest <bytes>]`: its last line is one JSON object; exit 1 if anything is wrong. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: "string" },
    "slow-fsync": { type: "string" },
    agents: { type: "string" },
    largest: { type: "string" },
  },
});
const number = (name: string, text: string | undefined, otherwise: number): number => {
  const value = Number(text ?? otherwise);
  if (Number.isFinite(value) && value >= 0) return value;
  console.error(`${name}: not a number`);
  process.exit(2);
};
const minutes = number("minutes", positionals[0], 5);
const seed = number("--seed", values.seed, Math.floor(Math.random() * 1_000_000_000));
console.log(`seed ${seed}: the same choices again with --seed ${seed}`);
const report = await soak({
  seconds: minutes * 60,
  seed,
  slowFsyncMs: number("--slow-fsync", values["slow-fsync"], 0),
  agents: number("--agents", values.agents, 6),
  hangs: minutes >= 2,
  largestBytes: Math.max(1_100_000, number("--largest", values.largest, 4_000_000)),
  say: (line) => console.log(line),
});
for (const problem of report.problems) console.log(`problem: ${problem}`);
if (!report.ok) console.log(`kept: ${String(report["folder"])}`);
console.log(JSON.stringify(report));
process.exit(report.ok ? 0 : 1);
