import type { Env } from "../deployment.ts";
import { within } from "../within.ts";
import { fetchOutbound } from "./outbound.ts";
import { signWebhook } from "./placing.ts";
import { readSecret } from "./read-secret.ts";

const TIMEOUT_MS = 10_000;

/**
 * True: the receiver has taken it. Whatever
 * is no 2xx has not, a redirect among it, and nothing that it answers is read.
 */
export async function postWebhook(
  { url, secret }: { readonly url: string; readonly secret: string },
  message: { readonly id: string; readonly body: string },
  env: Env,
): Promise<boolean> {
  const read = await readSecret(env, { name: secret, form: "webhook" }, Date.now());
  if (!read.ok) throw new Error(read.error);
  const abort = new AbortController();
  const headers = signWebhook(read.value, message, Date.now());
  const posting = fetchOutbound(url, { method: "POST", headers, body: message.body, signal: abort.signal });
  try {
    const response = await within(TIMEOUT_MS, posting);
    return response?.ok === true;
  } catch {
    return false;
  } finally {
    // A body that is not wanted, or an answer that did not come.
    abort.abort();
    posting.catch(() => {});
  }
}
