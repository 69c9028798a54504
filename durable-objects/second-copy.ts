import { type CopyState, copyFields, observe, type Sighting, UNSEEN } from "../src/control/second-copy.ts";
import type { ProofMark } from "../src/instance/contract.ts";
import type { Fields } from "../src/transcript/envelope.ts";

/** A loop of hits can't buy rows without end. Rules hear of every one. */
const RECORD_EVERY_MS = 60_000;

/** What is remembered of where an instance calls from: in memory alone, so it costs no row, and a new object begins anew. */
export class SecondCopy {
  #state: CopyState = UNSEEN;
  #recordedAtMs: number | null = null;
  #unrecorded = 0;

  /** Of a proof that verified and is no replay. Null: nothing to say; else a hit, with its record where one is due. */
  saw(
    { sighting, proof }: { readonly sighting?: Sighting | null; readonly proof: ProofMark },
    isRenewal: boolean,
    nowMs: number,
  ): { readonly fields: Fields | null } | null {
    if (sighting === undefined || sighting === null) return null;
    const seen = { ...sighting, issuedAtMs: proof.issuedAtMs, isRenewal };
    const { state, hit } = observe(this.#state, seen, nowMs);
    this.#state = state;
    if (hit === null) return null;
    const lastMs = this.#recordedAtMs;
    if (lastMs !== null && nowMs >= lastMs && nowMs < lastMs + RECORD_EVERY_MS) {
      this.#unrecorded++;
      return { fields: null };
    }
    const fields = copyFields(hit, this.#unrecorded);
    this.#recordedAtMs = nowMs;
    this.#unrecorded = 0;
    return { fields };
  }
}
