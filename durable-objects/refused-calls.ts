import type { Denial } from "../src/denial.ts";
import type { AdmitRequest } from "../src/instance/contract.ts";
import type { Json } from "../src/scope/call.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import { requestBody } from "./bodies.ts";
import { refusedFields } from "./instance-fields.ts";
import type { Ledger } from "./ledger.ts";
import { jtiOf } from "./proof-mark.ts";
import { RefusalCount } from "./refusal-count.ts";

export interface RefusedCallsOptions {
  readonly ledger: () => Ledger;
  readonly wakeBy: (atMs: number) => void;
}

/** Refused calls on record: so many a minute each by itself, and then one record that counts them. */
export class RefusedCalls {
  readonly #options: RefusedCallsOptions;
  #count = new RefusalCount(0);

  constructor(options: RefusedCallsOptions) {
    this.#options = options;
  }

  follow(recordedPerMinute: number): void {
    this.#count = new RefusalCount(recordedPerMinute);
  }

  get dueAtMs(): number | null {
    return this.#count.dueAtMs;
  }

  record(request: AdmitRequest, nowMs: number, denial: Denial): void {
    const ledger = this.#options.ledger();
    this.recordCounted(nowMs, false);
    const jti = jtiOf(request.proof);
    // A replayed `jti` is known already, for at least as long as it would be from now on.
    const isNew = !ledger.log.hasSeen(jti.id);
    if (!this.#count.mayRecord(nowMs)) {
      if (isNew) ledger.log.remember(jti.id, jti.untilMs);
      this.#options.wakeBy(this.#count.dueAtMs ?? nowMs);
      return;
    }
    const body = requestBody({ ...request.request, bodyFollows: false }, ledger.nextSeq());
    const sent = request.request.bodyFollows ? unfinished(body.reference) : body.reference;
    ledger.record("refused", nowMs, refusedFields(request, denial, sent), {
      deployment: request.deployment,
      grant: request.grant.id,
      ...(isNew ? { jti } : {}),
      body: body.piece,
    });
  }

  recordCounted(nowMs: number, force: boolean): void {
    const ledger = this.#options.ledger();
    const counted = this.#count.takeCounted(nowMs, force);
    if (counted !== null) ledger.record("refused", nowMs, { counted: counted.counted, minute: counted.minuteMs });
  }
}

/** Of a refused call whose body was longer than its first run, nobody has read the rest. */
const unfinished = (reference: Json): Json => ({ ...(reference as unknown as BodyReference), complete: false });
