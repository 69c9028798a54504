import { narrowed } from "../control/narrowing.ts";
import type { Deployment } from "../deployment.ts";
import type { Mandate, MandateRefusal, MandateState } from "../mandate/contract.ts";
import { latestDeadlineMs, whyUnusable } from "../mandate/decide.ts";
import { verifyMandateToken } from "../mandate/token.ts";
import { mandateBookOf, switchboardOf } from "../objects.ts";
import { ok, type Result } from "../result.ts";
import { coveredBy } from "../scope/decide.ts";
import { readEntries } from "../scope/entry.ts";
import { within } from "../within.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import type { AskedScope, Delegation } from "./provision.ts";
import { type Asked, actorOf } from "./subject.ts";

export const MANDATE = "urn:portcullis:params:oauth:token-type:mandate";
/** Above what the book waits for of others. */
const BOOK_TIMEOUT_MS = 10_000;

/**
 * A human's approval in advance, presented by the platform that it was given for. What it allows is asked of the human's
 * own book, now; what is asked for lies within it and within every ceiling as they are now; and a use is counted last.
 */
export async function byMandate(asked: Asked): Promise<Result<Delegation, OAuthError>> {
  const { token: text, client, deployment, nowMs } = asked;
  if (client === null) return failed("invalid_client", "no client_assertion");
  const { config } = deployment;
  if (config.mandates === undefined) return refused("this gate takes no mandates");
  const token = verifyMandateToken(text, deployment, nowMs);
  if (!token.ok) return refused(token.error);
  const { id, human, client: approved } = token.value;
  const about = <T>(result: Result<T, OAuthError>) => concerning({ human }, result);
  if (approved !== client.id) return about(refused("the mandate is for another client"));
  const book = mandateBookOf(deployment, human);
  const state = await within(BOOK_TIMEOUT_MS, book.read(id)).catch(() => undefined);
  if (state === undefined) return about(failed("temporarily_unavailable", "try again"));
  if (state === null) return about(refusedBy("unknown"));
  const unusable = whyUnusable(state, nowMs);
  if (unusable !== null) return about(refusedBy(unusable));
  const { mandate } = state;
  // The configuration may have changed since: then it is about nothing that this client provisions.
  if (mandate.platform !== client.id || mandate.agent !== client.platform.agent)
    return about(refused("the mandate is for another agent"));
  const groups = await groupsNow(mandate, deployment);
  if (groups === undefined) return about(failed("temporarily_unavailable", "try again"));
  return ok({
    ...delegationUnder({ ...mandate, groups }, state, asked),
    bounds: (asked) => withinMandate(mandate, asked, nowMs),
    spend: async () => {
      const used = await within(BOOK_TIMEOUT_MS, book.use(id)).catch(() => undefined);
      return used === undefined ? refusedBy("unavailable") : used.used ? ok(null) : refusedBy(used.reason);
    },
  });
}

/**
 * Those that the human had when approving, less all that was lost since: that may be longer ago than the roster
 * remembers it for newcomers. What is lost from here on, the roster knows. Undefined: nobody can say.
 */
async function groupsNow(mandate: Mandate, deployment: Deployment): Promise<readonly string[] | undefined> {
  const { human, emailDigest } = mandate;
  const names = emailDigest === null ? [human] : [human, emailDigest];
  const asked = switchboardOf(deployment).narrowingsOf(names);
  const narrowings = await within(BOOK_TIMEOUT_MS, asked).catch(() => undefined);
  return narrowings === undefined ? undefined : narrowed(mandate, narrowings);
}

const delegationUnder = (mandate: Mandate, { uses }: MandateState, asked: Asked): Delegation => ({
  lineage: {
    human: mandate.human,
    emailDigest: mandate.emailDigest,
    groups: mandate.groups,
    groupsAtMs: mandate.groupsAtMs,
    ...(mandate.emailUnverified === true ? { emailUnverified: true } : {}),
    agent: mandate.agent,
    client: mandate.platform,
    chain: [actorOf(asked, mandate.platform, mandate.agent)],
    ancestors: [],
    parentScope: null,
    mandate: mandate.id,
  },
  // Of the human the book keeps no more than this: who it is, the id says.
  humanClaims: {
    mandate: mandate.id,
    approvedAtMs: mandate.approvedAtMs,
    usesBefore: uses,
    groups: [...mandate.groups],
  },
  stated: { purpose: mandate.purpose },
  limits: mandate.limits,
});

/** Pure. */
function withinMandate(mandate: Mandate, { scope, deadlineMs }: AskedScope, nowMs: number): Result<null, OAuthError> {
  const approved = readEntries(mandate.scope, "");
  if (!approved.ok) return refused("what it approves can't be read");
  for (const [i, entry] of scope.entries())
    if (!coveredBy(approved.value, entry))
      return failed("invalid_authorization_details", `authorization_details[${i}] exceeds the mandate`);
  if (deadlineMs > latestDeadlineMs(mandate, nowMs))
    return failed("invalid_request", "deadline is later than the mandate allows");
  return ok(null);
}

/** RFC 8693 §2.2.2: a subject token that is no good is `invalid_request`. */
const refused = (reason: string) => failed("invalid_request", `subject_token: ${reason}`);

const refusedBy = (reason: MandateRefusal) =>
  reason === "unavailable" ? failed("temporarily_unavailable", "try again") : refused(`the mandate: ${reason}`);
