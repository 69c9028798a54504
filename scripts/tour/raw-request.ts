// Requests made by hand, for answers that must be the same to the byte: `fetch` would hide the order and spelling of headers.

import { request } from "node:http";
import { createAgentFetch } from "../../src/agent/agent-fetch.ts";
import type { Instance } from "../local/platform.ts";

export interface Probe {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface RawAnswer {
  readonly status: number;
  /** Names and values as they came, in their order. `Date` is left out. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

/** The request that this instance would send: with its token, and a proof made for this method and URL. */
export async function signed(
  gate: string,
  { key, grant }: Pick<Instance, "key" | "grant">,
  method: string,
  path: string,
): Promise<Probe> {
  const url = gate + path;
  let headers: Record<string, string> = {};
  const capture = createAgentFetch({
    gate,
    key,
    grant: { access_token: grant.access_token, expires_in: grant.expires_in },
    fetch: async (input, init) => {
      headers = Object.fromEntries(new Request(input, init).headers);
      return new Response();
    },
  });
  await capture(url, { method });
  return { method, url, headers };
}

export function send({ method, url, headers }: Probe): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => {
        const pairs = answer.rawHeaders.flatMap((name, index, raw) =>
          index % 2 === 0 ? [[name, raw[index + 1] ?? ""] as const] : [],
        );
        resolve({
          status: answer.statusCode ?? 0,
          headers: pairs.filter(([name]) => name.toLowerCase() !== "date"),
          body: Buffer.concat(chunks).toString("latin1"),
        });
      });
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

export const headerOf = (answer: RawAnswer, name: string): string | undefined =>
  answer.headers.find(([key]) => key.toLowerCase() === name)?.[1];

/** How many answers there are among these that differ in any byte. */
export const differentAnswers = (answers: readonly RawAnswer[]): number =>
  new Set(answers.map((answer) => JSON.stringify(answer))).size;
