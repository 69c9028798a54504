import { createHmac } from "node:crypto";
import { err, ok, type Result } from "../result.ts";
import type { Approval } from "./contract.ts";

/** Standard Webhooks 1.0.0: what is said of a request for approval, and how it is signed. Pure. */

/**
 * `whsec_` and 24 to 64 bytes in base64; or two such with a space between, while a receiver goes from one to the other. The
 * error never quotes it.
 */
export function parseWebhookSecret(text: string): Result<readonly Uint8Array[], string> {
  const keys = text.split(" ").map(parseKey);
  const known = keys.filter((key) => key !== undefined);
  return known.length === keys.length && keys.length <= KEYS_MAX
    ? ok(known)
    : err("is not whsec_ and 24 to 64 bytes in base64, nor two of these with a space between");
}

const KEYS_MAX = 2;

function parseKey(text: string): Uint8Array | undefined {
  const [, encoded] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text) ?? [];
  const key = encoded === undefined ? undefined : Buffer.from(encoded, "base64");
  return key === undefined || key.length < 24 || key.length > 64 ? undefined : new Uint8Array(key);
}

/**
 * Who is asked, for whom, and where to look. Of the URL neither query nor body: the receiver hands it on to chats and
 * mailboxes. The approver reads the rest at the admin's door, which puts on record who did.
 */
export const webhookBody = (approval: Approval, origin: string): string => {
  const { id, human, agent, agentVersion, task, purpose, instance, upstream, method, url } = approval;
  const query = url.indexOf("?");
  return JSON.stringify({
    type: "approval.requested",
    timestamp: new Date(approval.askedAtMs).toISOString(),
    data: {
      id,
      human,
      agent,
      agentVersion,
      instance,
      task,
      purpose,
      upstream,
      method,
      url: query === -1 ? url : url.slice(0, query),
      hasQuery: query !== -1,
      expiresAt: new Date(approval.expiresAtMs).toISOString(),
      link: `${origin}/admin/v1/approvals/${id}`,
    },
  });
};

/** The id stays the same however often it is sent: who has it already drops it. One signature by each key: a receiver takes any that it knows. */
export function webhookHeaders(
  id: string,
  body: string,
  keys: readonly Uint8Array[],
  nowMs: number,
): Record<string, string> {
  const timestamp = String(Math.floor(nowMs / 1_000));
  const macs = keys.map((key) => createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64"));
  return {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": macs.map((mac) => `v1,${mac}`).join(" "),
  };
}

/** When to send again, after so many attempts: seconds at first, at most a quarter of an hour; null: no more. */
export const webhookPauseMs = (attempts: number): number | null =>
  attempts >= WEBHOOK_ATTEMPTS ? null : Math.min(900_000, 2_000 * 3 ** (attempts - 1));

/** Over an hour and three quarters. */
const WEBHOOK_ATTEMPTS = 12;
