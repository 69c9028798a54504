/** Of requests in this object's memory while their calls wait: a quarter of what an isolate has. */
const MAX_WAITING_BYTES = 33_554_432;

/** Calls of one instance that wait for the same thing: for shared limits, or for the roster. */
export class WaitingCalls {
  #calls = 0;
  #bytes = 0;

  get calls(): number {
    return this.#calls;
  }

  /** @param bytes of the request, or of its body alone, as far as it is here */
  hasRoom(bytes: number): boolean {
    return this.#bytes + bytes <= MAX_WAITING_BYTES;
  }

  /** Returns what ends it. Done again it changes nothing. */
  begin(bytes: number): () => void {
    this.#calls++;
    this.#bytes += bytes;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#calls--;
      this.#bytes -= bytes;
    };
  }
}
