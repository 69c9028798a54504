// `portcullis agent`, as the command line starts it.

import { agent } from "../../scripts/cli/agent.ts";

process.exitCode = await agent.run(process.argv.slice(2));
