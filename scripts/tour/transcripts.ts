// Step 6, first half: the whole story stands in the bucket, and is verified from its bytes alone.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { Finding } from "../../src/transcript/verify-findings.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import type { Admin, TranscriptOf } from "../local/admin.ts";
import type { Organisation } from "../local/organisation.ts";
import { pullBucket, verifyFolder } from "../local/verify-folder.ts";
import { killReason } from "./kill.ts";
import { type Narrator, short } from "./narrator.ts";
import type { ShortLived } from "./refusals.ts";
import type { Team } from "./team.ts";

export interface Pulled {
  readonly folder: string;
  readonly keys: SealKeys;
  /** Where the transcripts of this tour stand, as in the bucket's keys. */
  readonly partitions: Readonly<Record<"triager" | "reader" | "counter" | "visitor", string>>;
  /** When the visitor's task was over. */
  readonly visitEndedAtMs: number;
}

const flushTimeoutMs = 30_000;
/** What an earlier run of the folder has left unfinished is finished within seconds of the start. */
const settleMs = 5_000;
const pollMs = 250;

export async function readTranscripts(
  { gate, bucket }: Organisation,
  team: Team,
  visitor: ShortLived,
  admin: Admin,
  dir: string,
  tour: Narrator,
): Promise<Pulled> {
  const { human, task } = (await admin.list()).find(({ instance }) => instance === team.reader.id)!;
  const of = {
    triager: { human, task, instance: team.triager.id },
    reader: { human, task, instance: team.reader.id },
    counter: { human, task, instance: team.counter.id },
    visitor: { human, task: `${task}-visit`, instance: visitor.instance.id },
  };
  const partitions = {
    triager: partitionOf(of.triager),
    reader: partitionOf(of.reader),
    counter: partitionOf(of.counter),
    visitor: partitionOf(of.visitor),
  };
  const ours = Object.values(partitions);

  const told = new Map<string, number>();
  for (const one of Object.values(of)) told.set(partitionOf(one), records(await admin.transcript(one)).length);
  const pulled = { folder: join(dir, "tour", "pulled"), keys: await publishedKeys(gate.origin), partitions };
  tour.say(`Records leave for the bucket within two seconds; it is copied to ${pulled.folder} and verified there.`);
  const verify = async () => {
    await rm(pulled.folder, { recursive: true, force: true });
    await pullBucket(bucket, pulled.folder);
    return verifyFolder(pulled.folder, { keys: pulled.keys, issuer: null, nowMs: Date.now() });
  };
  const isThere = (report: VerifyReport) =>
    ours.every((partition) => recordsIn(report, partition) >= told.get(partition)!);
  let report = await verify();
  const startedAtMs = Date.now();
  const mayCome = () => Date.now() < startedAtMs + (isThere(report) ? settleMs : flushTimeoutMs);
  while (!(isThere(report) && report.ok) && mayCome()) {
    await sleep(pollMs);
    report = await verify();
  }

  tour.check(
    `four transcripts stand in the bucket under human=${short(human)}…/task=…/instance=…/, with every record the admin's API tells`,
    ours.map((partition) => ({ partition, records: recordsIn(report, partition) >= told.get(partition)! })),
    ours.map((partition) => ({ partition, records: true })),
  );
  const { transcripts } = report;
  const total = (of: "records" | "segments") => transcripts.reduce((sum, transcript) => sum + transcript[of], 0);
  tour.check(
    `every hash and every seal holds: ${total("records")} records, ${total("segments")} sealed segments, ${transcripts.length} transcripts and journals`,
    { ok: report.ok, findings: findingsOf(report).slice(0, 3) },
    { ok: true, findings: [] },
  );
  tour.check(
    "the visitor's has its sealed end; the other three are open until their task is over",
    ours.map((partition) => transcripts.find((transcript) => transcript.partition === partition)?.status),
    ["open", "open", "open", "ended"],
  );
  const story = records(await admin.transcript(of.reader)).map(tell);
  tour.check(`the killed one's story ends: ${story.slice(-4).join(" · ")}`, story.slice(-4), [
    "asked POST /model/v1/chat/completions",
    `killed: ${killReason}`,
    "answer cut: switched",
    "refused GET /github/repos/acme/widgets/issues",
  ]);
  return { ...pulled, visitEndedAtMs: visitor.endsAtMs };
}

/** All that verification found, of whatever transcript. */
export const findingsOf = ({ transcripts, findings }: VerifyReport): readonly Finding[] => [
  ...findings,
  ...transcripts.flatMap((transcript) => transcript.findings),
];

const partitionOf = ({ human, task, instance }: TranscriptOf): string =>
  `human=${human}/task=${task}/instance=${instance}`;

const recordsIn = ({ transcripts }: VerifyReport, partition: string): number =>
  transcripts.find((transcript) => transcript.partition === partition)?.records ?? 0;

/** What anybody outside verifies with. */
async function publishedKeys(gate: string): Promise<SealKeys> {
  const keys = parseSealKeys(await (await fetch(`${gate}/.well-known/portcullis-seal-keys.json`)).json());
  if (!keys.ok) throw new Error(`the gate's seal keys: ${keys.error}`);
  return keys.value;
}

const recordShape = z.looseObject({
  type: z.string(),
  method: z.string().optional(),
  target: z.string().optional(),
  reason: z.string().optional(),
  outcome: z.string().optional(),
  cause: z.string().optional(),
});

/** The lines of a transcript that are records; the others are seals. */
const records = (lines: readonly string[]) =>
  lines.map((line) => recordShape.parse(JSON.parse(line))).filter(({ type }) => type !== "seal");

function tell({ type, method, target, reason, outcome, cause }: z.infer<typeof recordShape>): string {
  switch (type) {
    case "call":
      return `asked ${method} ${target}`;
    case "answer":
      return `answer ${outcome}${cause === undefined ? "" : `: ${cause}`}`;
    case "refused":
      return `refused ${method} ${target}`;
    case "switched":
      return `killed: ${reason}`;
    default:
      return type;
  }
}
