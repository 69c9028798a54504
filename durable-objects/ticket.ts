import { RpcTarget } from "cloudflare:workers";
import { unavailable } from "../src/denial.ts";
import type { Admission, Ticket } from "../src/instance/contract.ts";

/**
 * Of one call that waits for a person. It holds no place among the running calls and has spent nothing: a Worker that goes
 * away while it waits leaves nothing behind. Only a Worker that still has an agent to answer claims.
 */
export class CallTicket extends RpcTarget implements Ticket {
  readonly #wait: () => Promise<boolean>;
  readonly #admit: () => Promise<Admission>;
  #isClaimed = false;

  constructor(wait: () => Promise<boolean>, admit: () => Promise<Admission>) {
    super();
    this.#wait = wait;
    this.#admit = admit;
  }

  async decided(): Promise<boolean> {
    return this.#wait();
  }

  /** Its proof admits one call: a second claim would be a replay. */
  async claim(): Promise<Admission> {
    if (this.#isClaimed) return { admitted: false, denial: unavailable("claimed twice") };
    this.#isClaimed = true;
    return this.#admit();
  }
}
