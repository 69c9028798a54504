import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/**
 * What `wrangler deploy` would upload, without an account: prints its size, and fails where wrangler warns of anything.
 * The platform's own bound is 64 MiB before compression; ours is far below, for the start-up of a cold isolate. One
 * `import { z } from "zod"` in what is bundled exceeds it: that brings all of zod, with every language of its messages.
 */
const MAX_GZIP_KIB = 300;

const root = fileURLToPath(new URL("..", import.meta.url));
const output = execFileSync("wrangler", ["deploy", "--dry-run", "--outdir", "dist"], {
  cwd: root,
  encoding: "utf8",
  stdio: ["ignore", "pipe", "pipe"],
  env: { ...process.env, WRANGLER_SEND_METRICS: "false", NO_COLOR: "1", CI: "1" },
});
const size = /Total Upload: ([\d.]+) KiB \/ gzip: ([\d.]+) KiB/.exec(output);
if (size === null) throw new Error(`wrangler did not say the size:\n${output}`);
console.log(`${size[1]} KiB, ${size[2]} KiB after gzip`);
if (/warning/i.test(output)) {
  console.error(output);
  process.exit(1);
}
if (Number(size[2]) > MAX_GZIP_KIB) {
  console.error(`more than ${MAX_GZIP_KIB} KiB after gzip`);
  process.exit(1);
}
