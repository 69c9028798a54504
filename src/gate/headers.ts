import { foldHeaderName } from "../config/forward-headers.ts";

/** Pure: what may be said to an upstream, what may be said to an agent, and what goes on record. */

export type HeaderList = readonly (readonly [name: string, value: string])[];

/** RFC 9110 §7.6.1, and what is hop-by-hop in practice. */
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/**
 * What an agent may say to any upstream: words about content, conditions, traces, and the versions of well-known APIs.
 * None names a caller, a place or another method. INVARIANT: lower case, without `_`; see `findForwardingFault`.
 */
const FORWARDED = new Set([
  "accept",
  "accept-charset",
  "accept-language",
  "content-digest",
  "content-disposition",
  "content-encoding",
  "content-language",
  "content-md5",
  "content-type",
  "digest",
  "repr-digest",
  "user-agent",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "range",
  "cache-control",
  "idempotency-key",
  "pragma",
  "prefer",
  "baggage",
  "traceparent",
  "tracestate",
  "x-correlation-id",
  "x-request-id",
  "anthropic-beta",
  "anthropic-version",
  "notion-version",
  "openai-beta",
  "stripe-version",
  "x-github-api-version",
  "x-github-media-type",
]);
/** What OpenAI's and Anthropic's clients say of themselves. */
const FORWARDED_FAMILY = /^x-stainless-[a-z0-9-]+$/;

/**
 * Headers for the upstream: the agent's own words about content, and what this upstream's configuration names besides.
 * @param reserved a header that the gate alone says to it, in whatever spelling an agent tries it
 */
export function forwardedHeaders(
  recorded: HeaderList,
  alsoForwarded: readonly string[],
  reserved: string | null = null,
): Headers {
  const isReserved = (name: string) => reserved !== null && foldHeaderName(name) === foldHeaderName(reserved);
  const named = connectionOptions(recorded.find(([name]) => name === "connection")?.[1] ?? null);
  const headers = new Headers();
  for (const [name, value] of recorded) {
    if (!FORWARDED.has(name) && !FORWARDED_FAMILY.test(name) && !alsoForwarded.includes(name)) continue;
    if (!named.has(name) && !isReserved(name)) headers.append(name, value);
  }
  headers.set("accept-encoding", "identity");
  return headers;
}

/** What the agent sent, for the record, without what admits to the gate itself: the grant is named by its `jti`. */
export const recordedHeaders = (sent: Headers): HeaderList =>
  [...sent].filter(([name]) => name !== "authorization" && name !== "dpop");

const NOT_ANSWERED = new Set([
  ...HOP_BY_HOP,
  "content-length",
  "set-cookie",
  "set-cookie2",
  "www-authenticate",
  "authentication-info",
  "proxy-authentication-info",
  "dpop-nonce",
  "alt-svc",
  "clear-site-data",
  "content-location",
  "location",
  "link",
  "refresh",
  "content-encoding",
  // Of an origin, which to the agent is the gate's: no upstream speaks for it.
  "strict-transport-security",
  "public-key-pins",
  "public-key-pins-report-only",
  "expect-ct",
  "nel",
  "report-to",
  "reporting-endpoints",
  "accept-ch",
  "critical-ch",
  // A proxy before the gate would give the agent another body than the one on record.
  "x-sendfile",
  "x-lighttpd-send-file",
  "surrogate-control",
]);
/** nginx's, but for the one by which a stream of events is not held back, and the targeted fields of RFC 9213. */
const NOT_ANSWERED_FAMILY = /^x-accel-(?!buffering$)|-cache-control$/;
/** RFC 9111 §3.5: what lets a shared cache keep an answer that was authorized. */
const SHARED = /public|s-maxage|must-revalidate|proxy-revalidate/i;

export interface AnswerRewriting {
  readonly origin: string;
  /** The upstream URL that was asked: relative references resolve against it. */
  readonly askedUrl: string;
  /** Base URLs of the upstreams in the caller's grant. A link to any other would tell that it exists. */
  readonly bases: () => readonly (readonly [upstream: string, baseUrl: string])[];
  /** A parameter that holds our credential, taken out of whatever URL it stands in; null: there is none. */
  readonly hiddenParameter: string | null;
  /** Whether the upstream is asked for parts of an answer. */
  readonly takesRanges: boolean;
  /** Whether the body was decoded on the way, so that its coding is gone. */
  readonly decoded: boolean;
}

/** Headers for the agent. `Location` and `Link` lead back to the gate or are removed. */
export function answeredHeaders(received: Headers, rewriting: AnswerRewriting): Headers {
  const named = connectionOptions(received.get("connection"));
  const headers = new Headers();
  for (const [name, value] of received) {
    if (NOT_ANSWERED.has(name) || NOT_ANSWERED_FAMILY.test(name) || named.has(name)) continue;
    // RFC 9110 §14.3: a client is not to try.
    headers.append(name, name === "accept-ranges" && !rewriting.takesRanges ? "none" : value);
  }
  const caching = headers.get("cache-control");
  // Who gets it from there is not admitted, not on record, and not to be stopped. `private` outweighs the others, and first no
  // quote of theirs is open.
  if (caching !== null && SHARED.test(caching)) headers.set("cache-control", `private, ${caching}`);
  const coding = received.get("content-encoding");
  if (coding !== null && !rewriting.decoded) headers.set("content-encoding", coding);
  const location = received.get("location");
  const gateLocation = location === null ? undefined : toGate(location, rewriting);
  if (gateLocation !== undefined) headers.set("location", gateLocation);
  const link = received.get("link");
  const gateLinks = link === null ? "" : rewriteLinks(link, rewriting);
  if (gateLinks !== "") headers.set("link", gateLinks);
  return headers;
}

/** The codings that the runtime decodes by itself, leaving the header as it was. It knows them in lower case, and alone. */
export const isDecodedByRuntime = (coding: string | null): boolean => coding === "gzip" || coding === "br";

/** A URL below a granted upstream's base, as a URL of the gate; `undefined` for any other. */
export function toGate(
  reference: string,
  { origin, askedUrl, bases, hiddenParameter }: AnswerRewriting,
): string | undefined {
  if (!URL.canParse(reference, askedUrl)) return undefined;
  const url = new URL(reference, askedUrl);
  // Pages link to the next by the URL that they were asked by.
  if (hiddenParameter !== null) url.search = withoutParameter(url.search, hiddenParameter);
  const { href } = url;
  for (const [upstream, baseUrl] of bases()) {
    const rest = href.startsWith(baseUrl) ? href.slice(baseUrl.length) : undefined;
    if (rest !== undefined && /^([/?#]|$)/.test(rest)) return `${origin}/${upstream}${rest}`;
  }
  return undefined;
}

/** The others in their own encoding. */
function withoutParameter(search: string, hidden: string): string {
  const isHidden = (pair: string): boolean =>
    [...new URLSearchParams(pair).keys()].some((name) => name.toLowerCase() === hidden.toLowerCase());
  return search
    .slice(1)
    .split("&")
    .filter((pair) => !isHidden(pair))
    .join("&");
}

/** RFC 8288 §3. A link that can't be read, has another context than what was asked, or leads elsewhere, is left out. */
function rewriteLinks(header: string, rewriting: AnswerRewriting): string {
  const links: string[] = [];
  for (const text of splitLinks(header)) {
    const [, reference, parameters] = /^<([^<>]*)>(|[ \t]*;.*)$/.exec(text) ?? [];
    if (reference === undefined || parameters === undefined || /;\s*anchor\s*=/i.test(parameters)) continue;
    const target = toGate(reference, rewriting);
    if (target !== undefined) links.push(`<${target}>${parameters}`);
  }
  return links.join(", ");
}

/** At commas outside of `<>` and quotes, in one pass: a pattern for this takes a hostile header's length squared, or worse. */
function splitLinks(header: string): string[] {
  const links: string[] = [];
  let from = 0;
  let closedBy: ">" | '"' | null = null;
  for (let i = 0; i < header.length; i++) {
    const char = header[i];
    if (closedBy === '"' && char === "\\") i++;
    else if (char === closedBy) closedBy = null;
    else if (closedBy !== null) continue;
    else if (char === "<") closedBy = ">";
    else if (char === '"') closedBy = char;
    else if (char === ",") {
      links.push(header.slice(from, i).trim());
      from = i + 1;
    }
  }
  // What is still open at the end was cut off, or never a link.
  if (closedBy === null) links.push(header.slice(from).trim());
  return links;
}

function connectionOptions(connection: string | null): ReadonlySet<string> {
  if (connection === null) return NONE;
  return new Set(connection.split(",").map((option) => option.trim().toLowerCase()));
}

const NONE: ReadonlySet<string> = new Set();

/** `Content-Length`, where it is one. */
export function declaredLength(headers: Headers): number | null {
  const text = headers.get("content-length");
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}
