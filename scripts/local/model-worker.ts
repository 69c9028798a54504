// Runs aimock in a worker thread: it goes on pacing a stream after its client has left, and only ending the thread stops those
// timers. The pace is also its own, whatever else the starting process computes.

import { parentPort, workerData } from "node:worker_threads";
import { LLMock } from "@copilotkit/aimock";
import type { ModelWorkerData } from "./model.ts";

const { key, model, replies } = workerData as ModelWorkerData;
const mock = new LLMock({ port: 0, host: "127.0.0.1", strict: true, auth: { apiKeys: [key] } });
for (const { prompt, content, chunkSize, chunkDelayMs } of replies) {
  mock.on({ userMessage: prompt, model, endpoint: "chat" }, { content }, { latency: chunkDelayMs, chunkSize });
}
parentPort?.postMessage(await mock.start());
