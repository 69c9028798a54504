/** Names and values in turn, as `node:http` gives and takes them. */
export type RawHeaders = readonly string[];

/** RFC 9110 §7.6.1, and what is hop-by-hop in practice. `Expect` is answered here. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authentication-info",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "expect",
]);
/**
 * What clients insist on sending as their own: the upstream's credential is the gate's. The gate would not pass them on,
 * but they would have left this machine, and stand on record there.
 */
const CREDENTIALS = new Set([
  "authorization",
  "dpop",
  "cookie",
  "api-key",
  "x-api-key",
  "x-auth-token",
  "x-access-token",
  "x-goog-api-key",
  "x-amz-security-token",
  "private-token",
  "job-token",
]);

/** By lower-case name, in the order in which they came; several values where a name came several times. */
export function headersForGate(sent: RawHeaders, host: string): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = Object.create(null);
  const named = connectionOptions(sent);
  let coding: string | undefined;
  for (const [name, value] of pairs(sent)) {
    if (name === "transfer-encoding") coding = value;
    if (HOP_BY_HOP.has(name) || CREDENTIALS.has(name) || named.has(name) || name === "host") continue;
    const before = headers[name];
    headers[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  // The framing is this hop's own, of the same kind: a length that was declared stays declared.
  if (coding !== undefined) headers["transfer-encoding"] = "chunked";
  headers["host"] = host;
  return headers;
}

/** As the gate said it, but for the hop; links that lead to the gate lead here. */
export function headersForChild(answered: RawHeaders, gate: string, local: string): string[] {
  const headers: string[] = [];
  const named = connectionOptions(answered);
  for (let at = 0; at + 1 < answered.length; at += 2) {
    const [name, value] = [answered[at]!, answered[at + 1]!];
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || named.has(lower)) continue;
    if (lower === "location") headers.push(name, toLocal(value, gate, local));
    else if (lower === "link")
      headers.push(
        name,
        value.replace(/<([^<>]*)>/g, (_, url) => `<${toLocal(url, gate, local)}>`),
      );
    else headers.push(name, value);
  }
  return headers;
}

function toLocal(url: string, gate: string, local: string): string {
  const rest = url.startsWith(gate) ? url.slice(gate.length) : undefined;
  return rest !== undefined && /^([/?#]|$)/.test(rest) ? local + rest : url;
}

function* pairs(raw: RawHeaders): Generator<[name: string, value: string]> {
  for (let at = 0; at + 1 < raw.length; at += 2) yield [raw[at]!.toLowerCase(), raw[at + 1]!];
}

/** What `Connection` names goes no further; a length it can't name away. */
function connectionOptions(raw: RawHeaders): ReadonlySet<string> {
  const named = new Set<string>();
  for (const [name, value] of pairs(raw))
    if (name === "connection") for (const option of value.split(",")) named.add(option.trim().toLowerCase());
  named.delete("content-length");
  return named;
}
