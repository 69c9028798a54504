import { withoutRanges } from "../config/ranges.ts";
import type { RecordedRequest } from "../instance/contract.ts";
import { sha256Hex } from "../transcript/envelope.ts";

/**
 * Longer bodies can't be approved: it is far more than a person reads, and lies whole beside its record. The body's
 * facts are kept as JSON while the request is open, which a number in exponents makes 4.4 times as long: 1.1 MiB, below
 * the 2 MB of a row.
 */
export const APPROVABLE_MAX_BYTES = 262_144;

/**
 * Headers that go to upstreams and say what the bytes are, how they are read, or what is to be done with them. What names the client, the
 * attempt or the trace may differ between the call that asked and the one that is approved.
 */
const MEANING =
  /^(?:accept(?:-charset|-language)?|content-(?!length$).+|digest|repr-digest|if-.+|range|prefer|anthropic-.+|notion-version|openai-beta|stripe-version|x-github-.+)$/;

/** Where a call goes, besides what it says itself. */
export interface Destination {
  readonly upstream: string;
  readonly baseUrl: string;
  /** What the configuration lets pass besides. */
  readonly forwardHeaders: readonly string[];
  readonly takesRanges: boolean;
}

/** What an approver is shown, and approves. A part that the upstream is not asked for would look like less than what comes. */
export const shownHeaders = ({ takesRanges }: Pick<Destination, "takesRanges">, headers: RecordedRequest["headers"]) =>
  takesRanges ? headers : withoutRanges(headers);

/** Why nobody can approve exactly this call; null: it can be. An approver must see, and the digest must cover, all of it. */
export function whyNotApprovable({ body, bodyFollows, redaction }: RecordedRequest): string | null {
  if (bodyFollows || body.length > APPROVABLE_MAX_BYTES)
    return `a body of more than ${APPROVABLE_MAX_BYTES} bytes can't be approved`;
  if (redaction !== undefined && (redaction.values.length > 0 || redaction.body !== null))
    return "a call of which something is redacted can't be approved";
  return null;
}

/** One text for one call: two calls with the same digest are the same call. Pure. */
export function boundDigest(to: Destination, { method, target, headers, body }: RecordedRequest): string {
  const dropped = (headers.find(([name]) => name === "connection")?.[1] ?? "")
    .split(",")
    .map((option) => option.trim().toLowerCase());
  const meant = shownHeaders(to, headers)
    .filter(([name]) => MEANING.test(name) || to.forwardHeaders.includes(name))
    // RFC 9110 §7.6.1: a header that `Connection` names goes no further, and what was seen with it would pass without.
    .filter(([name]) => !dropped.includes(name))
    .toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return sha256Hex(JSON.stringify([to.upstream, to.baseUrl, method, target, meant, sha256Hex(body)]));
}
