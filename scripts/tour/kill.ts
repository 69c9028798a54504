// Step 4: three long answers stream at once, and an admin stops one of them in the middle of a byte stream.

import type { Admin, KillReceipt } from "../local/admin.ts";
import { modelName, slowAnswer, slowPrompt } from "../local/model.ts";
import type { Organisation } from "../local/organisation.ts";
import { askToRenew, type Instance, readRefusal } from "../local/platform.ts";
import { type Narrator, short } from "./narrator.ts";
import type { Team } from "./team.ts";

export const killReason = "It counts sheep on company time";
const chunksBeforeTheKill = 8;
/** Not a measurement, only what would be absurd: the figure printed is the real one. */
const absurdMs = 5_000;
const arrivalTimeoutMs = 30_000;

export async function killInMidStream(
  organisation: Organisation,
  team: Team,
  admin: Admin,
  tour: Narrator,
): Promise<KillReceipt> {
  const { gate, model, slowChunks } = organisation;
  const before = model.requests().at(-1)?.id ?? 0;
  const { reader } = team;
  const streams = [team.triager, reader, team.counter].map((instance) => openStream(gate.origin, instance));
  const [, killed] = streams as [Stream, Stream, Stream];
  await Promise.all(streams.map((stream) => stream.reached(chunksBeforeTheKill)));
  tour.say(
    `Three answers of ${slowChunks} chunks are streaming. Oscar, on call, kills ${short(reader.id)} by the API.`,
  );

  const receipt = await admin.kill(reader.id, killReason);
  const end = await killed.end;
  const cutMs = end.atMs - receipt.acceptedAtMs;
  tour.check(
    `its stream broke off after ${end.text.length} of ${slowAnswer(slowChunks).length} characters, ${cutMs} ms after the switch was accepted`,
    {
      receipt: { status: receipt.status, reached: receipt.reached, cut: receipt.cut, unconfirmed: receipt.unconfirmed },
      complete: end.complete,
      broken: end.broken,
      isBeginning:
        end.text.length > 0 && slowAnswer(slowChunks).startsWith(end.text) && end.text !== slowAnswer(slowChunks),
      inTime: cutMs < absurdMs,
    },
    {
      receipt: { status: "done", reached: 1, cut: 1, unconfirmed: 0 },
      complete: false,
      broken: true,
      isBeginning: true,
      inTime: true,
    },
  );
  await model.until(({ id, closedEarly }) => id > before && closedEarly, absurdMs);

  const others = await Promise.all(streams.filter((stream) => stream !== killed).map((stream) => stream.end));
  tour.check(
    "the other two run on to their last word",
    others.map(({ complete, broken, text }) => ({ complete, broken, whole: text === slowAnswer(slowChunks) })),
    others.map(() => ({ complete: true, broken: false, whole: true })),
  );
  const arrived = model.requests().filter(({ id }) => id > before);
  tour.check(
    "the model saw one of three connections closed early: nobody goes on paying for what nobody may read",
    { requests: arrived.length, closedEarly: arrived.filter(({ closedEarly }) => closedEarly).length },
    { requests: 3, closedEarly: 1 },
  );

  const next = await reader.fetch(`${gate.origin}/github/repos/acme/widgets/issues`);
  await next.body?.cancel();
  const renewal = await askToRenew(gate.origin, reader);
  tour.check(
    "the next call of the killed one is refused with 401, its renewal with invalid_grant",
    { call: next.status, renewal: renewal.status, error: readRefusal(renewal).error },
    { call: 401, renewal: 400, error: "invalid_grant" },
  );
  const listed = await admin.list();
  const stateOf = (instance: Instance) => listed.find((member) => member.instance === instance.id)?.state;
  tour.check(
    "the admin's list shows one of the three as killed, the others alive",
    [team.triager, reader, team.counter].map(stateOf),
    ["live", "killed", "live"],
  );
  return receipt;
}

interface StreamEnd {
  /** The answer said itself that it was whole. */
  readonly complete: boolean;
  /** The connection broke: nobody could take this end for a regular one. */
  readonly broken: boolean;
  readonly text: string;
  readonly atMs: number;
}

export interface Stream {
  /** Resolves when this many chunks have come; rejects when the stream ends before. */
  reached(chunks: number): Promise<void>;
  readonly end: Promise<StreamEnd>;
}

export function openStream(gate: string, instance: Instance): Stream {
  let text = "";
  let chunks = 0;
  let ended = false;
  let wake = () => {};
  const read = async (): Promise<StreamEnd> => {
    let complete = false;
    let broken = false;
    try {
      const answer = await instance.fetch(`${gate}/model/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: modelName, stream: true, messages: [{ role: "user", content: slowPrompt }] }),
        signal: AbortSignal.timeout(arrivalTimeoutMs * 2),
      });
      if (answer.status !== 200 || answer.body === null) throw new Error(`the stream began with ${answer.status}`);
      for await (const event of events(answer.body)) {
        if (event === "[DONE]") complete = true;
        else text += wordOf(event);
        chunks += 1;
        wake();
      }
    } catch {
      broken = true; // An ending, too: what came before is in `text`.
    }
    ended = true;
    wake();
    return { complete, broken, text, atMs: Date.now() };
  };
  return {
    end: read(),
    reached: async (wanted) => {
      while (chunks < wanted) {
        if (ended) throw new Error(`the stream ended after ${chunks} chunks`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

/** Data of server-sent events. Throws where the connection breaks. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice("data: ".length);
  }
}

interface ChatChunk {
  readonly choices: readonly { readonly delta: { readonly content?: string } }[];
}

const wordOf = (event: string): string => (JSON.parse(event) as ChatChunk).choices[0]?.delta.content ?? "";
