// What the copy of the bucket says, read without the product's code.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

export type Record = Readonly<{ [field: string]: unknown; type: string; seq: number }>;

export interface Transcript {
  readonly instance: string;
  readonly records: readonly Record[];
  /** Null: nothing of it is here. */
  body(seq: number, part: "request" | "answer"): Buffer | null;
}

interface BodyLine {
  readonly seq: number;
  readonly part: string;
  readonly index: number;
  readonly text?: string;
  readonly base64?: string;
  /** The beginning of the names of objects that hold what follows, in order. */
  readonly raw?: string;
}

/** One transcript after the other, so that only one is in memory. */
export function* transcriptsOf(folder: string): Generator<Transcript> {
  const all = (prefix: string): string[] => {
    try {
      return readdirSync(join(folder, prefix), { recursive: true, encoding: "utf8" });
    } catch {
      return [];
    }
  };
  const segments = all("transcripts").filter((name) => name.endsWith(".jsonl.gz") && name.includes("instance="));
  const partitions = new Set(segments.map((name) => name.slice(0, name.lastIndexOf("/"))));
  for (const partition of partitions) {
    const lines = <Line>(prefix: string): Line[] =>
      all(join(prefix, partition))
        .filter((name) => name.endsWith(".jsonl.gz"))
        .sort()
        .flatMap((name) =>
          gunzipSync(readFileSync(join(folder, prefix, partition, name)))
            .toString()
            .split("\n"),
        )
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Line);
    const runs = Map.groupBy(lines<BodyLine>("bodies"), ({ seq, part }) => `${seq} ${part}`);
    const parts = all(join("bodies", partition)).sort();
    const bytesOf = (line: BodyLine): Buffer => {
      if (line.raw === undefined)
        return line.text === undefined ? Buffer.from(line.base64 ?? "", "base64") : Buffer.from(line.text);
      const names = parts.filter((name) => name.startsWith(`${line.raw}.`));
      return Buffer.concat(names.map((name) => readFileSync(join(folder, "bodies", partition, name))));
    };
    yield {
      instance: partition.slice(partition.lastIndexOf("=") + 1),
      records: lines<Record>("transcripts").filter(({ type }) => type !== undefined && type !== "seal"),
      body: (seq, part) => {
        const found = runs.get(`${seq} ${part}`);
        return found === undefined ? null : Buffer.concat([...found].sort((a, b) => a.index - b.index).map(bytesOf));
      },
    };
  }
}
