import type { FlipAnswer, FlipProgress } from "../control/contract.ts";
import { receiptOf, signReceipt } from "../control/receipt.ts";
import type { Deployment } from "../deployment.ts";
import { switchboardOf } from "../objects.ts";

/** How often the switchboard is asked, later on how often, and for how long at most: a switch that is not done by then is asked for again. */
const POLL_MS = 100;
const PATIENT_AFTER_MS = 5_000;
const PATIENT_POLL_MS = 1_000;
const FOLLOW_MS = 120_000;

export const USED_KEY = "Idempotency-Key: used for another switch";

export const wantsEvents = (request: Request): boolean =>
  /(^|,)\s*text\/event-stream\s*(;|,|$)/i.test(request.headers.get("accept") ?? "");

const event = (type: string, data: unknown): Uint8Array =>
  new TextEncoder().encode(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);

/**
 * Progress of a switch while it runs: `progress` whenever something changed, in the end one `receipt`, or `pending`
 * where it is not through yet. The flip itself goes on whatever becomes of this stream.
 * @param flipping the answer to the flip that made it; null where it stands in the book already
 */
export function followSwitch(deployment: Deployment, id: string, flipping: Promise<FlipAnswer> | null): Response {
  let switchId = id;
  let isAccepted = flipping === null;
  let failure: string | null = null;
  flipping?.then(
    (answer) => {
      isAccepted = true;
      if (answer.flipped) switchId = answer.state.switch.id;
      else failure = USED_KEY;
    },
    () => {
      failure = "the switchboard or the journal could not be reached";
    },
  );
  const sinceMs = Date.now();
  let told = "";
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (;;) {
        // Figures alone: the whole state may be megabytes, and whom it is asked of has a switch to carry out.
        const board = switchboardOf(deployment);
        const figures = await board.progress(switchId);
        if (failure !== null) return end(controller, event("error", { detail: failure }));
        const text = JSON.stringify(figures);
        const state = isAccepted && isThrough(figures) ? await board.read(switchId) : null;
        if (state !== null) {
          const receipt = receiptOf(state, deployment.config.origin);
          const jws = signReceipt(deployment.sealKeys, receipt);
          return end(controller, event("receipt", { ...receipt, jws }));
        }
        const passedMs = Date.now() - sinceMs;
        if (passedMs >= FOLLOW_MS) return end(controller, event("pending", figures));
        if (figures !== null && text !== told) {
          told = text;
          return controller.enqueue(event("progress", figures));
        }
        await new Promise((resolve) => setTimeout(resolve, passedMs < PATIENT_AFTER_MS ? POLL_MS : PATIENT_POLL_MS));
      }
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-store" } });
}

/** Nothing more will come of it. */
const isThrough = (figures: FlipProgress | null): boolean =>
  figures?.status === "done" || figures?.status === "resumed";

function end(controller: ReadableStreamDefaultController<Uint8Array>, last: Uint8Array): void {
  controller.enqueue(last);
  controller.close();
}
