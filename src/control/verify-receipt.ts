import { hasType, parseCompact } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";
import type { Finding } from "../transcript/verify-findings.ts";
import type { SealKeys } from "../transcript/verify-keys.ts";
import { RECEIPT_TYPE, type Receipt } from "./receipt.ts";
import type { ReceiptTranscript } from "./receipt-events.ts";
import { receiptShape } from "./receipt-shape.ts";
import { refusesNewcomer } from "./switch.ts";
import {
  CLOCK_TOLERANCE_MS,
  closingsOf,
  verifyNamed,
  verifySilence,
  verifyUnreached,
} from "./verify-receipt-transcript.ts";

/**
 * A receipt names at most 10,000 instances that were reached, each with less than 200 characters, and as many that were
 * not, with less than 150; base64url makes a third more of them, and a million is left.
 */
const RECEIPT_MAX_CHARS = 6_000_000;

export interface ReceiptOptions {
  readonly keys: SealKeys;
  /** Whose receipt it must be; null: of anyone who holds one of the keys. */
  readonly issuer: string | null;
  /** What findings about the receipt itself name as their place. */
  readonly place: string;
}

export interface ReceiptReport {
  /** Null: it is no receipt, and the finding says why. */
  readonly receipt: Receipt | null;
  /** Instances of the receipt whose transcript was held to it. */
  readonly verified: readonly string[];
  /** Instances of the receipt whose transcript is not here: nothing is proven of them, and nothing against them. */
  readonly notAtHand: readonly string[];
  /** Transcripts with this switch on record that the receipt does not name: who was idle, or came later. */
  readonly unnamed: readonly string[];
  readonly findings: readonly Finding[];
  readonly ok: boolean;
}

/** Pure. Anyone with the public seal keys can do this: signature, kind, issuer, shape. What it says is not looked at yet. */
export function readReceipt(jws: string, { keys, issuer }: ReceiptOptions): Result<Receipt, string> {
  const parsed = parseCompact(jws, RECEIPT_MAX_CHARS);
  if (!parsed.ok) return err(parsed.error);
  const { header, payload, signingInput, signature } = parsed.value;
  if (!hasType(header, RECEIPT_TYPE)) return err(`another kind of token: its typ is not ${RECEIPT_TYPE}`);
  const verified = keys.verify(header, signingInput, signature);
  if (!verified.ok) return err(`its ${verified.error}`);
  const receipt = receiptShape.safeParse(payload);
  if (!receipt.success) {
    const [issue] = receipt.error.issues;
    return err(`not a receipt: ${issue?.path.join(".") || "the whole"}: ${issue?.message ?? "malformed"}`);
  }
  if (issuer !== null && receipt.data.iss !== issuer)
    return err(`it is of issuer ${receipt.data.iss}, not of ${issuer}`);
  return ok(receipt.data);
}

/**
 * Pure. Holds a receipt to itself, and to the transcripts that are at hand. The transcripts' own seals are for
 * `verifyTranscripts`: what it finds fault with is not to be given to this.
 *
 * What it can't see: transcripts that are not here, and what an instance wrote after the copy was made. A copy must be
 * younger than the receipt.
 */
export function verifyReceipt(
  jws: string,
  options: ReceiptOptions,
  transcripts: readonly ReceiptTranscript[],
): ReceiptReport {
  const read = readReceipt(jws, options);
  if (!read.ok) {
    const findings = [{ place: options.place, problem: read.error }];
    return { receipt: null, verified: [], notAtHand: [], unnamed: [], findings, ok: false };
  }
  const receipt = read.value;
  const findings: Finding[] = [];
  for (const problem of figureProblems(receipt)) findings.push({ place: options.place, problem });

  const instances = new Map((receipt.instances ?? []).map((one) => [one.instance, one]));
  const unreached = new Map((receipt.unreached ?? []).map((one) => [one.instance, one]));
  const atHand = new Set(transcripts.map(({ instance }) => instance));
  const unnamed: ReceiptTranscript[] = [];
  for (const transcript of transcripts) {
    const named = instances.get(transcript.instance);
    const late = unreached.get(transcript.instance);
    if (named !== undefined) findings.push(...verifyNamed(receipt, named, transcript));
    else if (late !== undefined) findings.push(...verifyUnreached(receipt, late, transcript));
    else if (closingsOf(receipt, transcript).length > 0) {
      unnamed.push(transcript);
      findings.push(...verifySilence(receipt, transcript));
    }
  }
  if (receipt.instances !== null) findings.push(...unnamedProblems(receipt, unnamed));
  const names = [...instances.keys(), ...unreached.keys()];
  return {
    receipt,
    verified: names.filter((name) => atHand.has(name)),
    notAtHand: names.filter((name) => !atHand.has(name)),
    unnamed: unnamed.map(({ instance }) => instance),
    findings,
    ok: findings.length === 0,
  };
}

/** What the receipt's figures say of each other. */
function figureProblems(receipt: Receipt): string[] {
  const { instances, unreached, acceptedAtMs, lastByteAtMs } = receipt;
  const { firstAcknowledgedAtMs: first, p50AcknowledgedAtMs: p50, p99AcknowledgedAtMs: p99 } = receipt;
  const last = receipt.lastAcknowledgedAtMs;
  const problems: string[] = [];
  const hold = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const { act, groups, eventAtMs } = receipt.switch;
  hold(acceptedAtMs === receipt.switch.atMs, "acceptedAtMs is not the switch's atMs");
  hold(
    (act === "narrow") === (groups !== undefined) && (act === "narrow") === (eventAtMs !== undefined),
    "the groups that are left and the time of that, of one that narrows, or neither",
  );
  hold(receipt.opened === null || receipt.opened.atMs >= acceptedAtMs, "opened before it was accepted");
  const times = [first, p50, p99, last].filter((time) => time !== null);
  hold(
    times.length === (receipt.reached === 0 ? 0 : 4),
    "times of acknowledgement, where somebody was reached, or none",
  );
  hold(
    times.every((time, i) => time >= (times[i - 1] ?? acceptedAtMs)),
    "accepted <= first <= p50 <= p99 <= last does not hold",
  );
  hold(
    lastByteAtMs === null || (last !== null && lastByteAtMs <= last),
    "a byte passed after the last acknowledgement",
  );
  hold(lastByteAtMs === null || receipt.cut > 0, "a last byte, and no call was cut");
  const names = [...(instances ?? []), ...(unreached ?? [])].map(({ instance }) => instance);
  hold(new Set(names).size === names.length, "an instance is named twice");
  hold(
    (receipt.lastStoppedByMs === null) === (receipt.missing === 0),
    "a time by which the last is stopped, where somebody is missing, or none",
  );
  if (unreached !== null) {
    hold(
      receipt.missing === unreached.length,
      `missing is ${receipt.missing}, and ${unreached.length} unreached are named`,
    );
    const lastMs = unreached.reduce((last, { stoppedByMs }) => Math.max(last, stoppedByMs), 0);
    hold(
      (receipt.lastStoppedByMs ?? 0) === lastMs,
      `lastStoppedByMs is ${receipt.lastStoppedByMs}, and by the unreached it is ${lastMs}`,
    );
  }
  if (instances === null) return problems;
  hold(
    receipt.reached === instances.length,
    `reached is ${receipt.reached}, and ${instances.length} instances are named`,
  );
  for (const figure of ["cut", "unconfirmed"] as const) {
    const sum = instances.reduce((total, one) => total + one[figure], 0);
    hold(receipt[figure] === sum, `${figure} is ${receipt[figure]}, and the instances' sum is ${sum}`);
  }
  const sorted = instances.map(({ acknowledgedAtMs }) => acknowledgedAtMs).sort((a, b) => a - b);
  const rank = (share: number): number | null => sorted[Math.max(1, Math.ceil(sorted.length * share)) - 1] ?? null;
  const stated = { first: [first, rank(0)], p50: [p50, rank(0.5)], p99: [p99, rank(0.99)], last: [last, rank(1)] };
  for (const [name, [said, found]] of Object.entries(stated))
    hold(said === found, `${name}AcknowledgedAtMs is ${said}, and by the instances it is ${found}`);
  return problems;
}

/**
 * Who is in reach when a switch comes has either a running confirmation, and is named, or none, and is counted as idle. An
 * idle one has the switch on record as soon as it asks, which can be while others are still being told; a newcomer,
 * where newcomers are let in, with its enrolment. So more of them than `idle` are a contradiction, and fewer are not. Of those
 * that were not reached, where the receipt names none, each may be among them.
 */
function unnamedProblems(receipt: Receipt, unnamed: readonly ReceiptTranscript[]): Finding[] {
  const { status, acceptedAtMs, lastAcknowledgedAtMs } = receipt;
  const idle = receipt.idle + (receipt.unreached === null ? receipt.missing : 0);
  if (status !== "done") return [];
  const untilMs = lastAcknowledgedAtMs ?? acceptedAtMs;
  const isNewcomer = ({ enrolledAtMs }: ReceiptTranscript): boolean =>
    !refusesNewcomer(receipt.switch) && enrolledAtMs !== null && enrolledAtMs >= acceptedAtMs - CLOCK_TOLERANCE_MS;
  const early = unnamed.flatMap((transcript) => {
    const [closing] = closingsOf(receipt, transcript);
    return closing === undefined || closing.atMs > untilMs || isNewcomer(transcript) ? [] : [closing];
  });
  if (early.length <= idle) return [];
  return early.map(({ place }) => ({
    place,
    problem: `stopped before the last acknowledgement, and not in the receipt, which counts ${idle} ${receipt.unreached === null ? "idle or not reached" : "idle"} where ${early.length} are on record`,
  }));
}
