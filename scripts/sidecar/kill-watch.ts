// Tells a killed instance from a call that was refused for a reason that passes.

import type { HeldGrant } from "../../src/agent/held-grant.ts";
import type { Verdict } from "./relay.ts";

export interface KillWatchOptions {
  readonly grant: HeldGrant;
  /** How long calls and renewal must have been refused. Nothing: nobody is stopped. */
  readonly stopAfterMs: number | undefined;
  readonly onStop: () => void;
  readonly say: (line: string) => void;
}

export interface KillWatch {
  note(verdict: Verdict): void;
  close(): void;
}

/** The gate tells an instance not whether it is paused or killed: only the time that it lasts tells them apart. */
export function createKillWatch({ grant, stopAfterMs, onStop, say }: KillWatchOptions): KillWatch {
  let isAsking = false;
  let isRefused = false;
  let isUnproven = false;
  let timer: NodeJS.Timeout | undefined;

  function pass(): void {
    clearTimeout(timer);
    timer = undefined;
    if (isRefused) say("the gate admits this instance's calls again");
    isRefused = false;
  }

  /** A call was refused: is the renewal, too? */
  async function ask(): Promise<void> {
    if (isAsking) return;
    isAsking = true;
    // Refused before: the next try is a matter of the next calls, and of the end of `stopAfterMs`.
    const renewal = grant.refusedSinceMs === undefined ? await grant.renew() : "refused";
    isAsking = false;
    if (renewal === "renewed") return pass();
    if (renewal !== "refused" || isRefused) return;
    isRefused = true;
    say(
      "the gate refuses this instance's calls and its renewal: it was killed, paused or revoked, or its task is over",
    );
    if (stopAfterMs === undefined) return;
    if (stopAfterMs === 0) return onStop();
    timer = setTimeout(() => void conclude(), stopAfterMs);
  }

  async function conclude(): Promise<void> {
    const renewal = await grant.renew();
    if (renewal === "refused") onStop();
    else if (renewal === "renewed") pass();
    else if (timer !== undefined) timer = setTimeout(() => void conclude(), AGAIN_MS);
  }

  return {
    note(verdict) {
      if (verdict === "refused") return void ask();
      if (verdict === "admitted") return pass();
      if (verdict === "unproven" && !isUnproven)
        say("the gate does not take this instance's proofs: is this machine's clock right?");
      isUnproven ||= verdict === "unproven";
    },
    close: () => clearTimeout(timer),
  };
}

const AGAIN_MS = 1_000;
