// What an admin does, from the command line, with the stack that `npm start` has brought up. Signs in as Oscar, who is on call.
//   npm run -s admin -- list
//   npm run -s admin -- kill <instance> --reason "…"
//   npm run -s admin -- pull <folder>

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Admin, createAdmin } from "./local/admin.ts";
import { openBucketDoor } from "./local/bucket-door.ts";
import { findRunning, type RunAddresses } from "./local/run-file.ts";
import { signInAt } from "./local/sign-in.ts";
import { pullBucket, SEAL_KEYS_FILE } from "./local/verify-folder.ts";

const usage = `Usage: npm run -s admin -- <command> [--dir <folder of npm start>]
  list                              the instances that the gate knows
  kill <instance> --reason "…"      stops one at once; the beginning of its id is enough
  pull <folder>                     copies the transcripts out of the bucket`;

/** An instance's id that begins with a dash, as one in 64 does. No option here has a single one. */
const looksLikeOption = (arg: string): boolean => /^-[A-Za-z0-9_]/.test(arg) || /^-[A-Za-z0-9_-]{42}$/.test(arg);

/** What a person can put right. */
class UsageError extends Error {}

async function main(args: readonly string[]): Promise<void> {
  const ids = args.filter(looksLikeOption);
  const { values, positionals } = parseArgs({
    args: [...args.filter((arg) => !looksLikeOption(arg)), "--", ...ids],
    allowPositionals: true,
    options: { dir: { type: "string", default: ".portcullis" }, reason: { type: "string" } },
  });
  const [command, operand, ...rest] = positionals;
  if (rest.length > 0) throw new UsageError(usage);
  const running = await findRunning(values.dir);
  const admin = createAdmin(running.gate, () => signInAt(running.issuer, "oscar", "portcullis-admin"));
  if (command === "list" && operand === undefined) return list(admin);
  if (command === "kill" && operand !== undefined) return kill(admin, operand, values.reason);
  if (command === "pull" && operand !== undefined) return pull(running, operand);
  throw new UsageError(usage);
}

async function list(admin: Admin): Promise<void> {
  const members = await admin.list();
  if (members.length === 0) console.log("No instance is live.");
  for (const { instance, state: held, agent, agentVersion, task, upstreams, deadlineMs } of members) {
    const until = new Date(deadlineMs).toISOString().slice(0, 16).replace("T", " ");
    const state = held !== "live" ? held : deadlineMs <= Date.now() ? "over" : "live";
    console.log(
      `${instance}  ${state.padEnd(6)}  ${agent} ${agentVersion}  ${task}  ${upstreams.join(",")}  until ${until}Z`,
    );
  }
}

async function kill(admin: Admin, beginning: string, reason: string | undefined): Promise<void> {
  if (reason === undefined || reason.trim() === "") throw new UsageError('A kill needs its reason: --reason "…"');
  const found = (await admin.list()).filter(({ instance }) => instance.startsWith(beginning));
  if (found.length !== 1) throw new UsageError(`${found.length} instances begin with ${beginning}; see: list`);
  const { instance } = found[0]!;
  const { status, cut, lastAcknowledgedAtMs, acceptedAtMs } = await admin.kill(instance, reason);
  if (status === "accepted") console.log(`Accepted: ${instance} admits nothing more; the gate carries the cut on.`);
  else
    console.log(
      `Killed ${instance}: ${cut} running calls cut, acknowledged after ${(lastAcknowledgedAtMs ?? acceptedAtMs) - acceptedAtMs} ms.`,
    );
}

async function pull({ gate, bucket }: RunAddresses, folder: string): Promise<void> {
  const pulled = await pullBucket(openBucketDoor(bucket), folder);
  const keys = await fetch(`${gate}/.well-known/portcullis-seal-keys.json`);
  await writeFile(join(folder, SEAL_KEYS_FILE), await keys.text());
  console.log(`${pulled} objects of ${gate} are in ${folder}. Verify them with: npm run -s verify -- ${folder}`);
}

try {
  await main(process.argv.slice(2));
} catch (cause) {
  console.error((cause as Error).message);
  process.exitCode = 1;
}
