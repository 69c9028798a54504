import type { UpstreamConfig } from "../config/define.ts";
import type { Env } from "../deployment.ts";

/**
 * INVARIANT: the one place that opens an upstream's credential, as late as can be, and the one function that places
 * it. It goes into the request that leaves and nowhere else: not into a record, a log line or an error.
 */
export function injectCredential(headers: Headers, upstream: UpstreamConfig, env: Env): void {
  const { header, secret, value } = upstream.credential;
  const opened = env[secret];
  if (typeof opened !== "string" || opened === "") throw new Error("a credential is not set");
  headers.set(
    header,
    value.replaceAll("{secret}", () => opened),
  );
}
