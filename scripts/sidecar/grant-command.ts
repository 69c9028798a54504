import { spawn } from "node:child_process";
import { refused } from "./ending.ts";

const TIMEOUT_MS = 120_000;
const ANSWER_MAX_BYTES = 262_144;

/**
 * Runs the platform's own program, which does the token exchange with secrets that never come here. Its answer is what it
 * printed, as JSON. The proof is good for 120 s, once.
 */
export function runGrantCommand(
  command: string,
  { gate, proof, signal }: { readonly gate: string; readonly proof: string; readonly signal: AbortSignal },
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, {
      shell: true,
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, PORTCULLIS_PROOF: proof, PORTCULLIS_GATE: gate },
      timeout: TIMEOUT_MS,
      signal,
    });
    const runs: Buffer[] = [];
    let bytes = 0;
    child.stdout.on("data", (run: Buffer) => {
      bytes += run.length;
      if (bytes > ANSWER_MAX_BYTES) child.kill();
      else runs.push(run);
    });
    child.on("error", (cause) => reject(refused(`the grant command did not run: ${cause.message}`)));
    child.on("close", (code, killedBy) => {
      if (bytes > ANSWER_MAX_BYTES) return reject(refused("the grant command printed more than a grant"));
      const answer = parseJson(Buffer.concat(runs).toString());
      // An error of the authority (RFC 6749 §5.2) says more than that its program failed.
      if (code !== 0 && !isRefusal(answer))
        return reject(refused(`the grant command ended with ${killedBy ?? code}, and without a grant`));
      // What it printed is not repeated: it may be a part of a token.
      if (answer === undefined) return reject(refused("the grant command printed no JSON"));
      resolve(answer);
    });
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isRefusal = (answer: unknown): boolean => typeof answer === "object" && answer !== null && "error" in answer;
