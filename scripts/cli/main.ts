// The command line, `npx portcullis <command>`, on this process's own streams.

import { EXIT } from "./command.ts";
import { runCommand } from "./commands.ts";
import { createIo } from "./terminal.ts";

// `… | head` has read enough.
process.stdout.on("error", (cause: NodeJS.ErrnoException) => {
  if (cause.code !== "EPIPE") throw cause;
  process.exit(EXIT.ok);
});
process.exitCode = await runCommand(process.argv.slice(2), createIo(process.stdout, process.stderr, process.env));
