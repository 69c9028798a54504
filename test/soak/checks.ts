// Three books, kept apart, against what the bucket holds: the upstream's, each client's, and the puts' own.

import type { PutReport } from "./bucket-faults.ts";
import { answerBody, requestBody, sha256 } from "./content.ts";
import type { Attempt } from "./load.ts";
import { type Record, type Transcript, transcriptsOf } from "./recorded.ts";
import type { Arrival } from "./upstream.ts";

export interface Books {
  readonly attempts: readonly Attempt[];
  readonly arrivals: readonly Arrival[];
  readonly puts: readonly PutReport[];
}

export interface Problems {
  /** Reached the upstream or a client, and is not on record as it should be. */
  readonly lost: string[];
  readonly duplicated: string[];
  /** On record, and not what passed. */
  readonly altered: string[];
}

export interface Counted {
  /** Calls on record. */
  recorded: number;
  /** Answers by outcome. */
  readonly outcomes: { [outcome: string]: number };
  /** Answers that a client had in full. */
  whole: number;
  partial: number;
  recordedBytes: number;
}

const CALL = /[?&]call=soak~(\d+)~/;

export function checkBooks(folder: string, books: Books): { problems: Problems; counted: Counted } {
  const problems: Problems = { lost: [], duplicated: [], altered: [] };
  const counted: Counted = { recorded: 0, outcomes: {}, whole: 0, partial: 0, recordedBytes: 0 };
  const attempts = new Map(books.attempts.map((attempt) => [attempt.call, attempt]));
  const arrivals = Map.groupBy(books.arrivals, ({ call }) => call);
  const seen = new Set<number>();
  for (const transcript of transcriptsOf(folder)) {
    const answers = Map.groupBy(
      transcript.records.filter(({ type }) => type === "answer"),
      (record) => record["call"] as number,
    );
    for (const record of transcript.records.filter(({ type }) => type === "call")) {
      const call = Number(CALL.exec(record["target"] as string)?.[1] ?? -1);
      const attempt = attempts.get(call);
      const name = `call ${call} (seq ${record.seq} of ${transcript.instance})`;
      counted.recorded++;
      if (seen.has(call)) problems.duplicated.push(`${name}: a second record of it`);
      seen.add(call);
      const [answer, ...others] = answers.get(record.seq) ?? [];
      if (others.length > 0) problems.duplicated.push(`${name}: ${others.length + 1} answers`);
      if (answer === undefined) problems.lost.push(`${name}: no answer in the end`);
      if (attempt === undefined || attempt.instance !== transcript.instance || attempt.method !== record["method"]) {
        problems.altered.push(`${name}: nobody made this call`);
        continue;
      }
      const outcome = String(answer?.["outcome"]);
      counted.outcomes[outcome] = (counted.outcomes[outcome] ?? 0) + 1;
      const one = { name, attempt, answer, transcript, seq: record.seq, problems, counted };
      checkRequest(one, arrivals.get(call)?.[0]);
      checkAnswer(one);
    }
  }
  for (const [call, [_first, ...again]] of arrivals) {
    if (!seen.has(call)) problems.lost.push(`call ${call}: the upstream saw it, and no record speaks of it`);
    if (again.length > 0) problems.duplicated.push(`call ${call}: the upstream saw it ${again.length + 1} times`);
  }
  for (const { call, isUpstreams } of books.attempts)
    if (isUpstreams && !seen.has(call)) problems.lost.push(`call ${call}: answered, and no record speaks of it`);
  checkPuts(books.puts, problems);
  return { problems, counted };
}

interface One {
  readonly name: string;
  readonly attempt: Attempt;
  readonly answer: Record | undefined;
  readonly transcript: Transcript;
  readonly seq: number;
  readonly problems: Problems;
  readonly counted: Counted;
}

/** What the upstream received is on record, every byte of it, and no more of it than is stated as forwarded. */
function checkRequest(
  { name, attempt, answer, transcript, seq, problems, counted }: One,
  arrival: Arrival | undefined,
) {
  const recorded = transcript.body(seq, "request") ?? Buffer.alloc(0);
  const sent = requestBody(attempt.call, attempt.requestBytes);
  counted.recordedBytes += recorded.length;
  if (!recorded.equals(sent.subarray(0, recorded.length))) problems.altered.push(`${name}: its body is another`);
  if (arrival === undefined) return;
  if (arrival.method !== attempt.method) problems.altered.push(`${name}: arrived as ${arrival.method}`);
  if (arrival.bytes > recorded.length)
    problems.lost.push(`${name}: ${arrival.bytes} bytes of its body arrived, ${recorded.length} are on record`);
  if (arrival.hash.copy().digest("hex") !== sha256(sent.subarray(0, arrival.bytes)))
    problems.altered.push(`${name}: other bytes arrived than were sent`);
  const forwarded = answer?.["forwardedBytes"];
  if (typeof forwarded === "number" && forwarded < arrival.bytes)
    problems.lost.push(`${name}: ${arrival.bytes} bytes arrived, and only ${forwarded} are stated as forwarded`);
}

/** What a client had in full is complete on record; what it had in part is there, but for what is stated as missing. */
function checkAnswer({ name, attempt, answer, transcript, seq, problems, counted }: One) {
  const recorded = transcript.body(seq, "answer") ?? Buffer.alloc(0);
  const said = answerBody(attempt.kind, attempt.call, attempt.answerBytes);
  const reference = answer?.["body"] as { mayMiss?: number; bytes?: number; complete?: boolean } | null | undefined;
  counted.recordedBytes += recorded.length;
  if (!recorded.equals(said.subarray(0, recorded.length))) problems.altered.push(`${name}: its answer is another`);
  if (answer?.["outcome"] === "complete" && recorded.length !== said.length)
    problems.lost.push(`${name}: complete, and ${recorded.length} of ${said.length} bytes are on record`);
  if ((reference?.bytes ?? 0) !== recorded.length)
    problems.lost.push(`${name}: ${recorded.length} bytes of an answer of which ${reference?.bytes} are stated`);
  if (!attempt.isUpstreams) return;
  const { receivedBytes, receivedDigest, isWhole } = attempt;
  if (receivedDigest !== sha256(said.subarray(0, receivedBytes)))
    problems.altered.push(`${name}: the client received other bytes than the upstream said`);
  if (isWhole) {
    counted.whole++;
    if (answer?.["outcome"] !== "complete" || receivedBytes !== recorded.length)
      problems.lost.push(
        `${name}: the client has all ${receivedBytes} bytes, on record it is ${String(answer?.["outcome"])} with ${recorded.length}`,
      );
    return;
  }
  counted.partial++;
  const mayMiss = reference?.mayMiss ?? 0;
  if (receivedBytes > recorded.length + mayMiss)
    problems.lost.push(
      `${name}: the client has ${receivedBytes} bytes of an answer, on record are ${recorded.length} and ${mayMiss} that may be missing`,
    );
}

/** Every attempt to write an object was for the same bytes, and would not have replaced it. */
function checkPuts(puts: readonly PutReport[], problems: Problems): void {
  for (const [key, tries] of Map.groupBy(puts, (put) => put.key)) {
    if (tries.some(({ isConditional }) => !isConditional))
      problems.duplicated.push(`${key}: a put that would overwrite`);
    if (new Set(tries.map(({ digest }) => digest)).size > 1)
      problems.duplicated.push(`${key}: puts of different bytes`);
  }
}
