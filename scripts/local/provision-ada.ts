// Leaves a file for `portcullis agent --provision`, so that any command can be an agent of Ada's at the local gate. It holds the
// platform's key, as the secrets beside it do, and no token: Ada signs in anew for each instance.

import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelName } from "./model.ts";
import { platformName } from "./platform.ts";
import type { Es256PrivateJwk } from "./secrets.ts";

const fileName = "ada.json";
const signIn = fileURLToPath(new URL("id-token.ts", import.meta.url));

export async function writeProvisionFile(
  dir: string,
  { gate, issuer, clientKey }: { readonly gate: string; readonly issuer: string; readonly clientKey: Es256PrivateJwk },
): Promise<void> {
  const path = join(dir, fileName);
  const file = {
    gate,
    client: platformName,
    clientKey,
    idToken: { command: [process.execPath, signIn, issuer, "ada"].map(quoted).join(" ") },
    task: "by-hand",
    purpose: "Try the gate by hand",
    seconds: 3_600,
    agentVersion: "1.4.0",
    authorization_details: [
      {
        type: "http",
        upstream: "github",
        operations: [
          "GET /repos/{owner}/{repo}/issues",
          "GET /repos/{owner}/{repo}/issues/{issue_number}",
          "PATCH /repos/{owner}/{repo}/issues/{issue_number}",
        ],
        where: { owner: ["acme"], repo: ["widgets"] },
      },
      { type: "http", upstream: "slack", operations: ["POST /api/chat.postMessage"] },
      {
        type: "http",
        upstream: "model",
        operations: ["POST /v1/chat/completions"],
        where: { "body./model": [modelName] },
      },
    ],
  };
  // Written aside and moved: nobody reads half of it, and one that was there with another mode is replaced.
  await writeFile(`${path}.new`, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** One word for a shell. */
const quoted = (word: string): string => `'${word.replaceAll("'", String.raw`'\''`)}'`;
