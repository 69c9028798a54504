// Step 6, second half: somebody with write access to the copy tries to tell another story. Each try is unpacked, edited and packed
// again as they would do it, and verification must name the place.

import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { END_GRACE_MS } from "../../src/transcript/verify.ts";
import { verifyFolder } from "../local/verify-folder.ts";
import { killReason } from "./kill.ts";
import type { Narrator } from "./narrator.ts";
import { findingsOf, type Pulled } from "./transcripts.ts";

/** A segment as it lies in the bucket: records, and the seal as the last line. */
interface Segment {
  readonly key: string;
  readonly lines: readonly string[];
}

interface Forgery {
  readonly key: string;
  /** Null: the object is removed. */
  readonly lines: readonly string[] | null;
  /** The line where verification must see it. */
  readonly index: number;
}

interface Attempt {
  readonly what: string;
  readonly at: keyof Pulled["partitions"];
  readonly forge: (segments: readonly Segment[]) => Forgery;
  /** Judged then, not now: a missing end shows when it is overdue. */
  readonly judgedAtMs?: (pulled: Pulled) => number;
}

const attempts: readonly Attempt[] = [
  {
    what: "one changed byte: the reason of the kill",
    at: "reader",
    forge: (segments) => {
      const { segment, index } = find(segments, (line) => line.includes(killReason));
      const lines = segment.lines.with(index, segment.lines[index]!.replace(killReason, killReason.replace("s", "S")));
      return { key: segment.key, lines, index };
    },
  },
  {
    what: "one missing record: the comment that the agent wrote",
    at: "triager",
    forge: (segments) => {
      const { segment, index } = find(segments, (line) => line.includes("/issues/1/comments"));
      return { key: segment.key, lines: segment.lines.toSpliced(index, 1), index };
    },
  },
  {
    what: "two swapped records",
    at: "triager",
    forge: (segments) => {
      const segment = segments.find(({ lines }) => lines.length > 3);
      if (segment === undefined) throw new Error("no segment has three records");
      const [first, second, third] = segment.lines as readonly [string, string, string];
      return { key: segment.key, lines: [first, third, second, ...segment.lines.slice(3)], index: 1 };
    },
  },
  {
    what: "a cut tail: the last record, what the killed one tried after",
    at: "reader",
    forge: (segments) => {
      const segment = segments.at(-1)!;
      const lines = segment.lines.toSpliced(-2, 1);
      return { key: segment.key, lines, index: lines.length - 1 };
    },
  },
  {
    what: "a cut tail: the last segment, with the sealed end that the deadline demands",
    at: "visitor",
    forge: (segments) => {
      if (segments.length < 2) throw new Error("the visitor's transcript has one segment");
      return { key: segments.at(-1)!.key, lines: null, index: 0 };
    },
    judgedAtMs: ({ visitEndedAtMs }) => visitEndedAtMs + END_GRACE_MS + 1,
  },
];

export async function forgeTranscripts(pulled: Pulled, dir: string, tour: Narrator): Promise<void> {
  const folder = join(dir, "tour", "forged");
  const others = (at: Attempt["at"]) =>
    Object.values(pulled.partitions).filter((path) => path !== pulled.partitions[at]);
  for (const { what, at, forge, judgedAtMs } of attempts) {
    await rm(folder, { recursive: true, force: true });
    await cp(pulled.folder, folder, { recursive: true });
    const forgery = forge(await readSegments(folder, pulled.partitions[at]));
    const { key, lines } = forgery;
    if (lines === null) await rm(join(folder, key));
    else await writeFile(join(folder, key), gzipSync(`${lines.join("\n")}\n`));
    const place = placeOf(forgery);

    const report = await verifyFolder(folder, {
      keys: pulled.keys,
      issuer: null,
      nowMs: judgedAtMs?.(pulled) ?? Date.now(),
    });
    const findings = findingsOf(report);
    const named = findings.find((finding) => finding.place === place);
    tour.check(
      `${what}. Found: ${named === undefined ? "nothing there" : `${shortPlace(named.place)}: ${named.problem}`}`,
      {
        ok: report.ok,
        place: named?.place ?? findings[0]?.place,
        others: findings.filter((finding) => others(at).some((path) => finding.place.includes(path))),
      },
      { ok: false, place, others: [] },
    );
  }
  await rm(folder, { recursive: true, force: true });
}

async function readSegments(folder: string, partition: string): Promise<readonly Segment[]> {
  const names = (await readdir(join(folder, "transcripts", partition))).sort();
  return Promise.all(
    names.map(async (name) => {
      const key = `transcripts/${partition}/${name}`;
      const text = gunzipSync(await readFile(join(folder, key))).toString("utf8");
      return { key, lines: text.split("\n").filter((line) => line !== "") };
    }),
  );
}

function find(segments: readonly Segment[], is: (line: string) => boolean) {
  for (const segment of segments) {
    const index = segment.lines.findIndex(is);
    if (index !== -1) return { segment, index };
  }
  throw new Error("the record to forge is not in the transcript");
}

/** Where verification must point: to the line and the record that stands there now, or to the segment where none is left. */
function placeOf({ key, lines, index }: Forgery): string {
  if (lines === null || lines.length === 1) return key;
  const { seq } = JSON.parse(lines[index]!) as { readonly seq?: number };
  return `${key} line ${index + 1}${seq === undefined ? "" : ` (seq ${seq})`}`;
}

/** Keys are long; their end and the instance's beginning are enough on a screen. */
const shortPlace = (place: string): string => place.replace(/^transcripts\/.*\/(instance=.{8})[^/]*\//, "…/$1…/");
