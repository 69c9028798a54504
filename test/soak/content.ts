// What bodies hold: decided by a call's number, so that whoever checks needs none of the bytes that were sent.

import { createCipheriv, createHash } from "node:crypto";

export type AnswerKind = keyof typeof ANSWERS;

/** How an upstream may answer. */
export const ANSWERS = {
  json: "application/json",
  binary: "application/octet-stream",
  gzip: "application/json",
  sse: "text/event-stream",
  chunked: "application/octet-stream",
  declared: "application/octet-stream",
  slow: "text/plain",
  hang: "text/plain",
  halfway: "application/octet-stream",
  early: "application/json",
  empty: "text/plain",
} as const;

const TEXTS: ReadonlySet<string> = new Set(["json", "gzip", "sse", "slow", "early"]);

/** A call's name, where bytes are searched for it. */
export const markOf = (call: number): string => `soak~${call}~`;
export const answerMarkOf = (call: number): string => `soak~a${call}~`;

/** The whole answer to a call, before any coding. */
export function answerBody(kind: AnswerKind, call: number, bytes: number): Buffer {
  if (kind === "empty" || kind === "hang") return Buffer.alloc(0);
  const stream = keyStream(`answer ${call}`, bytes);
  if (!TEXTS.has(kind)) return stream;
  const text = stream.toString("base64");
  if (kind === "sse") return Buffer.from((text.match(/.{1,60}/g) ?? []).map((line) => `data: ${line}\n\n`).join(""));
  return Buffer.from(JSON.stringify({ mark: answerMarkOf(call), text: text.slice(0, bytes) }));
}

export const requestBody = (call: number, bytes: number): Buffer => keyStream(`request ${call}`, bytes);

function keyStream(name: string, bytes: number): Buffer {
  const key = createHash("sha256").update(name).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
