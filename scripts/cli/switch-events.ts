// A switch while it is carried out: the gate's event stream, up to the receipt.

import { type Progress, progress as progressEvent, type Receipt, receipt as receiptEvent } from "./gate-answers.ts";

const EVENT_MAX_CHARS = 16_777_216;

/** The receipt. Null: the switch goes on without anybody who listens, because the gate told enough or the stream broke off. */
export async function followSwitch(
  response: Response,
  onProgress: (progress: Progress) => void,
): Promise<Receipt | null> {
  try {
    for await (const { type, data } of readEvents(response)) {
      const value: unknown = JSON.parse(data);
      if (type === "receipt") return receiptEvent.parse(value);
      if (type === "progress") onProgress(progressEvent.parse(value));
      // An error is the stream's: the switch may stand, and asked for under its key the gate says what is true.
      if (type === "pending" || type === "error") return null;
    }
  } catch {
    // It broke off, or is of another version.
  }
  return null;
}

/** HTML, Server-sent events: as much of it as the gate writes. */
async function* readEvents(response: Response): AsyncGenerator<{ type: string; data: string }> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name: string): string =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      yield { type: field("event"), data: field("data") };
    }
    if (text.length > EVENT_MAX_CHARS) throw new Error("an event without an end");
  }
}
