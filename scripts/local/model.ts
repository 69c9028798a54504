// The organisation's model provider: OpenAI chat completions with SSE, under its own key. Anything without that key is refused
// with 401, any other model or prompt with 503.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { type RecordedUpstream, startRecorder } from "./recorder.ts";

export const modelName = "gpt-4.1-mini";
export const quickPrompt = "Say that the gate stands.";
export const quickAnswer = "The gate stands.";
/** Answered in many small chunks, one sheep each. */
export const slowPrompt = "Count the sheep that pass the gate.";

const defaultSlowChunks = 160;
const defaultChunkDelayMs = 75; // 160 chunks of 75 ms: twelve seconds.
const sheepLength = "sheep 0001 passes. ".length;

export interface ModelWorkerData {
  readonly key: string;
  readonly model: string;
  readonly replies: readonly {
    readonly prompt: string;
    readonly content: string;
    readonly chunkSize: number;
    readonly chunkDelayMs: number;
  }[];
}

export interface ModelOptions {
  /** 0 or absent: any free port. */
  readonly port?: number;
  readonly key: string;
  /** How many chunks the slow answer has, at most 9999. */
  readonly slowChunks?: number;
  /** Pause before each chunk of the slow answer. */
  readonly chunkDelayMs?: number;
}

/** The text of the slow answer when it is whole. */
export function slowAnswer(chunks = defaultSlowChunks): string {
  return Array.from({ length: chunks }, (_, index) => `sheep ${String(index + 1).padStart(4, "0")} passes. `).join("");
}

/** Starts the provider. The chat endpoint is `${baseUrl}/v1/chat/completions`. */
export async function startModel(options: ModelOptions): Promise<RecordedUpstream> {
  const recorder = await startRecorder(options.port ?? 0);
  const workerData: ModelWorkerData = {
    key: options.key,
    model: modelName,
    replies: [
      { prompt: quickPrompt, content: quickAnswer, chunkSize: 4, chunkDelayMs: 5 },
      {
        prompt: slowPrompt,
        content: slowAnswer(options.slowChunks),
        chunkSize: sheepLength,
        chunkDelayMs: options.chunkDelayMs ?? defaultChunkDelayMs,
      },
    ],
  };
  const worker = new Worker(new URL("./model-worker.ts", import.meta.url), { workerData, execArgv: [], env: {} });
  try {
    const [url] = (await once(worker, "message")) as [string];
    recorder.pointAt(url);
  } catch (cause) {
    await Promise.all([worker.terminate(), recorder.close()]);
    throw cause;
  }
  const close = async () => {
    await recorder.close();
    await worker.terminate();
  };
  return { ...recorder, close };
}
