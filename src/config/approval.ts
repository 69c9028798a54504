import * as z from "zod";
import { HUMAN_NAME, isHumanName, keyOfHumanName } from "./human-name.ts";
import { httpUrl, positive, secretName } from "./names.ts";

/** Calls that a person must have approved, and who is told of them. */

/** How long a call may wait in the gate: below the patience of clients and of what stands between them and the gate. */
export const APPROVAL_WAIT_MAX_SECONDS = 60;

export const approvalPolicy = z.strictObject({
  /** How long the call itself waits for a decision before it is answered as pending. */
  waitSeconds: z.number().int().min(0).max(APPROVAL_WAIT_MAX_SECONDS).default(0),
  /** How long after it was given an approval can be used. */
  validSeconds: positive.max(86_400).default(300),
  /** How long it can be decided, counted from the call. */
  expireSeconds: positive.max(604_800).default(3_600),
  /** Whoever the agent acts for does not approve its calls. */
  notDelegator: z.boolean().default(true),
  /** Groups of the admins' identity provider, one of which the approver must be in besides the role. */
  groups: z.array(z.string().min(1)).min(1).readonly().optional(),
});
export type ApprovalPolicy = z.output<typeof approvalPolicy>;

/** Accounts of one person, by address or by id; as the keys of records once read. */
const samePerson = z
  .array(z.array(z.string().refine(isHumanName, HUMAN_NAME).transform(keyOfHumanName)).min(2).readonly())
  .readonly()
  .superRefine((people, ctx) => {
    const seen = new Set<string>();
    for (const [i, accounts] of people.entries())
      for (const [j, account] of accounts.entries()) {
        // Of an account in two lists, these would be one.
        if (seen.has(account)) ctx.addIssue({ code: "custom", path: [i, j], message: "is named twice" });
        seen.add(account);
      }
  });

export const approvals = z.strictObject({
  /** Who has several accounts approves by none of them what an agent does for another of them. */
  samePerson: samePerson.default([]),
  /** Is told of each new request, by the rules of Standard Webhooks. `secret` holds `whsec_<base64>`. */
  webhook: z.strictObject({ url: httpUrl, secret: secretName }).optional(),
});
