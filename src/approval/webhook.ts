import { createHmac } from "node:crypto";
import { err, ok, type Result } from "../result.ts";
import type { Approval } from "./contract.ts";

/** Standard Webhooks 1.0.0: what is said of a request for approval, and how it is signed. Pure. */

/** `whsec_` and 24 to 64 bytes in base64. The error never quotes it. */
export function parseWebhookSecret(text: string): Result<Uint8Array, string> {
  const [, encoded] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text) ?? [];
  const key = encoded === undefined ? undefined : Buffer.from(encoded, "base64");
  if (key === undefined || key.length < 24 || key.length > 64) return err("is not whsec_ and 24 to 64 bytes in base64");
  return ok(new Uint8Array(key));
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

/** The id stays the same however often it is sent: who has it already drops it. */
export function webhookHeaders(id: string, body: string, key: Uint8Array, nowMs: number): Record<string, string> {
  const timestamp = String(Math.floor(nowMs / 1_000));
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": `v1,${mac}`,
  };
}

/** When to send again, after so many attempts: seconds at first, at most a quarter of an hour; null: no more. */
export const webhookPauseMs = (attempts: number): number | null =>
  attempts >= WEBHOOK_ATTEMPTS ? null : Math.min(900_000, 2_000 * 3 ** (attempts - 1));

/** Over an hour and three quarters. */
const WEBHOOK_ATTEMPTS = 12;
