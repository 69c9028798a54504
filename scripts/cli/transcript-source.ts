// Where a transcript and its bodies are read from: a gate's admin API, or a folder that mirrors the bucket.

import type { BodyPart } from "../../src/transcript/body-line.ts";
import type { InstancePartition } from "../../src/transcript/layout.ts";
import { CommandError, EXIT } from "./command.ts";
import type { Connection } from "./connection.ts";
import { ask } from "./gate-client.ts";
import { findWhereabouts } from "./target.ts";

export type BodyRead =
  | { readonly bytes: AsyncIterable<Uint8Array> }
  /** Why there is none, for a person. */
  | { readonly absent: string };

export interface TranscriptSource {
  /** The exact lines as of now. Throws where they break off: a part would pass for the whole. */
  lines(): AsyncIterable<string>;
  body(seq: number, part: BodyPart): Promise<BodyRead>;
  /** More may come. */
  readonly isLive: boolean;
}

/** @param operands an instance, or human, task and instance */
export async function openGateSource(connection: Connection, operands: readonly string[]): Promise<TranscriptSource> {
  const { human, task, instance } =
    operands.length === 1
      ? await findWhereabouts(connection, operands[0]!)
      : ({ human: operands[0]!, task: operands[1]!, instance: operands[2]! } satisfies InstancePartition);
  const path = ["transcripts", human, task, instance].map(encodeURIComponent).join("/");
  return {
    isLive: true,
    async *lines() {
      const response = await ask(connection, path, { isStream: true });
      yield* linesOf(whole(connection, response));
    },
    async body(seq, part) {
      try {
        return { bytes: whole(connection, await ask(connection, `${path}/bodies/${seq}/${part}`, { isStream: true })) };
      } catch (cause) {
        if (!(cause instanceof CommandError) || cause.exitCode !== EXIT.no) throw cause;
        return { absent: cause.message.replace(/^Refused: /, "") };
      }
    },
  };
}

async function* whole({ gate }: Connection, response: Response): AsyncGenerator<Uint8Array> {
  try {
    yield* (response.body ?? []) as AsyncIterable<Uint8Array>;
  } catch {
    throw new CommandError(EXIT.unreachable, `${gate} broke off in the middle of its answer`);
  }
}

/** The text of bytes, line by line, without empty ones. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield line;
  }
  rest += decoder.decode();
  if (rest !== "") yield rest;
}
