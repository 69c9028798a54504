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

/** What an agent may not say: who it is, where it comes from, and what would change how the request is read. */
const NOT_FORWARDED = new Set([
  ...HOP_BY_HOP,
  "host",
  "content-length",
  "expect",
  "accept-encoding",
  "http2-settings",
  // Credentials: the upstream is to know one caller, the one whose credential the gate injects.
  "authorization",
  "dpop",
  "cookie",
  "cookie2",
  "api-key",
  "apikey",
  "x-api-key",
  "x-apikey",
  "x-access-token",
  "x-auth-token",
  "x-goog-api-key",
  "x-amz-security-token",
  "private-token",
  "job-token",
  "deploy-token",
  "txn-token",
  "signature",
  "signature-input",
  "signature-agent",
  "x-ssl-client-cert",
  "client-cert",
  "client-cert-chain",
  "remote-user",
  "x-remote-user",
  // Where it came from.
  "forwarded",
  "x-forwarded",
  "via",
  "x-real-ip",
  "true-client-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "client-ip",
  "fastly-client-ip",
  "x-originating-ip",
  "x-remote-ip",
  "x-remote-addr",
  "x-host",
  "x-original-host",
  // Another method or path than the one that was authorized.
  "x-original-url",
  "x-rewrite-url",
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
]);
const NOT_FORWARDED_PREFIXES = ["x-forwarded-", "cf-", "x-portcullis-", "proxy-", "x-amzn-", "x-envoy-"];

/** Headers for the upstream: the agent's own words about content, nothing about identity. */
export function forwardedHeaders(recorded: HeaderList): Headers {
  const named = connectionOptions(recorded.find(([name]) => name === "connection")?.[1] ?? null);
  const headers = new Headers();
  for (const [name, value] of recorded) {
    // To a CGI-like server `X_Forwarded_For` and `X-Forwarded-For` are one variable.
    const read = name.includes("_") ? name.replaceAll("_", "-") : name;
    if (NOT_FORWARDED.has(read) || named.has(name)) continue;
    if (NOT_FORWARDED_PREFIXES.some((prefix) => read.startsWith(prefix))) continue;
    headers.append(name, value);
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
]);

export interface AnswerRewriting {
  readonly origin: string;
  /** The upstream URL that was asked: relative references resolve against it. */
  readonly askedUrl: string;
  /** Base URLs of the upstreams in the caller's grant. A link to any other would tell that it exists. */
  readonly bases: () => readonly (readonly [upstream: string, baseUrl: string])[];
  /** Whether the body was decoded on the way, so that its coding is gone. */
  readonly decoded: boolean;
}

/** Headers for the agent. `Location` and `Link` lead back to the gate or are removed. */
export function answeredHeaders(received: Headers, rewriting: AnswerRewriting): Headers {
  const named = connectionOptions(received.get("connection"));
  const headers = new Headers();
  for (const [name, value] of received) {
    if (NOT_ANSWERED.has(name) || named.has(name)) continue;
    headers.append(name, value);
  }
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
export function toGate(reference: string, { origin, askedUrl, bases }: AnswerRewriting): string | undefined {
  if (!URL.canParse(reference, askedUrl)) return undefined;
  const { href } = new URL(reference, askedUrl);
  for (const [upstream, baseUrl] of bases()) {
    const rest = href.startsWith(baseUrl) ? href.slice(baseUrl.length) : undefined;
    if (rest !== undefined && /^([/?#]|$)/.test(rest)) return `${origin}/${upstream}${rest}`;
  }
  return undefined;
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
