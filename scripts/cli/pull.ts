// pull: transcripts into a folder, laid out as in the bucket, so that `verify` can read them.

import { join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { z } from "zod";
import { instancePartition, KEY_ID, segmentKey } from "../../src/transcript/layout.ts";
import { openBucketDoor } from "../local/bucket-door.ts";
import { pullBucket, SEAL_KEYS_FILE, writeForOwner } from "../local/verify-folder.ts";
import { onlyOperand, parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import { listInstances, readWhole } from "./gate-client.ts";
import { count } from "./printable.ts";

export const pull: Command = {
  summary: "copy transcripts into a folder, for verify",
  usage: `portcullis pull <folder>

Of the stack of npm start: the whole bucket. Of any other gate: the sealed records of the instances that it lists, without
bodies and without what is not sealed yet; for everything, copy the bucket with an S3 tool.

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, CONNECTION);
    const folder = onlyOperand(operands, "folder");
    const connection = await connect(options, io);
    const { gate, local } = connection;
    const objects =
      local === null
        ? await pullListed(connection, folder)
        : await pullBucket(openBucketDoor(local.bucket), folder).catch((cause: Error) => {
            throw new CommandError(EXIT.unreachable, `the bucket of ${gate} can't be copied: ${cause.message}`);
          });
    await writeForOwner(join(folder, SEAL_KEYS_FILE), await sealKeys(gate));
    const verify = `npx portcullis verify ${folder}${local === null ? " --no-bodies" : ""}`;
    if (options.json) io.json({ gate, folder, objects });
    else io.say(`${count(objects, "object")} of ${gate} in ${folder}. Verify: ${verify}`);
    return EXIT.ok;
  },
};

/** Against whoever can write to the copy, only keys that were got another way prove anything. */
async function sealKeys(gate: string): Promise<string> {
  const response = await fetch(`${gate}/.well-known/portcullis-seal-keys.json`, { redirect: "manual" }).catch(
    () => null,
  );
  if (response?.ok !== true) throw new CommandError(EXIT.unreachable, `${gate} does not say its seal keys`);
  return response.text();
}

async function pullListed(connection: Connection, folder: string): Promise<number> {
  let objects = 0;
  for (const { human, task, instance } of await listInstances(connection)) {
    const ids = [human, task, instance];
    // They become a path.
    if (!ids.every((id) => KEY_ID.test(id))) throw new CommandError(EXIT.unreachable, "an id that can't be a path");
    const text = await readWhole(connection, `transcripts/${ids.join("/")}`);
    for (const [firstSeq, lines] of segmentsOf(text, instance)) {
      const key = segmentKey(instancePartition({ human, task, instance }), firstSeq);
      await writeForOwner(join(folder, key), await promisify(gzip)(`${lines.join("\n")}\n`));
      objects += 1;
    }
  }
  return objects;
}

const line = z.object({ type: z.string(), seq: z.number().int().nonnegative().optional() });

/** Each segment ends with its seal. What comes after the last seal is in no segment yet. */
function* segmentsOf(text: string, instance: string): Generator<[firstSeq: number, lines: string[]]> {
  let firstSeq: number | undefined;
  let lines: string[] = [];
  for (const [at, raw] of text.split("\n").entries()) {
    if (raw === "") continue;
    const { type, seq } = parseLine(raw, `line ${at + 1} of the transcript of ${instance}`);
    firstSeq ??= seq;
    lines.push(raw);
    if (type !== "seal") continue;
    if (firstSeq !== undefined) yield [firstSeq, lines];
    firstSeq = undefined;
    lines = [];
  }
}

function parseLine(raw: string, place: string): z.infer<typeof line> {
  try {
    return line.parse(JSON.parse(raw));
  } catch {
    throw new CommandError(
      EXIT.unreachable,
      `${place} is no record: the gate's answer is broken, or of another version`,
    );
  }
}
