#!/usr/bin/env node
// `npx portcullis …`, on whatever Node the system has (20 or newer): installs what is locked where that is missing or stale, then
// goes on with the packaged Node, which runs TypeScript as it is. Here is nothing but the way there and back.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import "../scripts/setup.mjs";

const packaged = fileURLToPath(new URL("../node_modules/.bin/node", import.meta.url));
const main = fileURLToPath(new URL("../scripts/cli/main.ts", import.meta.url));

const child = spawn(existsSync(packaged) ? packaged : process.execPath, [main, ...process.argv.slice(2)], {
  stdio: "inherit",
});
// A terminal tells the whole group of a Ctrl-C, others tell this process alone. The child decides what it means: `agent` hands all
// of them to the command that it runs.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2", "SIGWINCH", "SIGCONT"])
  process.on(signal, () => child.kill(signal));
child.on("error", (cause) => {
  console.error(`portcullis could not be started: ${cause.message}`);
  process.exitCode = 1;
});
// 128 and the signal's number, as shells have it.
child.on("exit", (code, signal) => {
  process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
});
