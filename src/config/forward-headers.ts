/**
 * Pure: what no configuration may let an agent say to an upstream. To a CGI-like server `X_Real_IP` and `X-Real-IP`
 * are one variable, so names are compared folded.
 */

const NEVER = new Set([
  // RFC 9110 §7.6.1, and what is hop-by-hop in practice.
  "connection",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  // What the gate or the runtime says itself.
  "host",
  "content-length",
  "expect",
  "accept-encoding",
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
  // Who acts for whom: the gate signs that, where an upstream wants it.
  "sudo",
  "on-behalf-of",
  "x-on-behalf-of",
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
const NEVER_PREFIXES = [
  "x-forwarded-",
  "cf-",
  "x-portcullis-",
  "portcullis-",
  "impersonate-",
  "x-remote-",
  "x-ms-client-principal",
  "x-goog-iap-",
  "x-goog-authenticated-user-",
  "proxy-",
  "x-amzn-",
  "x-envoy-",
];

export const foldHeaderName = (name: string): string => name.toLowerCase().replaceAll("_", "-");

/** Why an agent's header of this name may not be passed to an upstream with this header for its credential; else undefined. */
export function findForwardingFault(name: string, credentialHeader: string | null): string | undefined {
  const folded = foldHeaderName(name);
  if (credentialHeader !== null && folded === foldHeaderName(credentialHeader))
    return "the header of the upstream's own credential";
  const isNever = NEVER.has(folded) || NEVER_PREFIXES.some((prefix) => folded.startsWith(prefix));
  return isNever ? "never passed on: a credential, a hop's own, or where and what a request is" : undefined;
}
