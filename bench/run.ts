import { benchCall } from "./call.ts";
import { benchKill } from "./kill.ts";
import { benchTranscript } from "./transcript.ts";

/** `npm run bench -- <name> [<scenario>]`: prints what it measures, and as its last line one JSON object with the figures. */
const benches: Readonly<Record<string, (only?: string) => Promise<void>>> = {
  call: benchCall,
  kill: benchKill,
  transcript: benchTranscript,
};

const name = process.argv[2] ?? "call";
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
if (bench === undefined) {
  console.error(`No bench "${name}". There is: ${Object.keys(benches).join(", ")}.`);
  process.exit(2);
}
await bench(process.argv[3]);
