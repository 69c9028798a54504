import { createDelegationProof, createProof, type InstanceKey } from "./instance-key.ts";

/** What the token endpoint answered, as the platform hands it on. */
export interface GrantTokens {
  readonly access_token: string;
  readonly expires_in: number;
  readonly refresh_token?: string;
}

export interface HeldGrantOptions {
  /** The gate's origin, e.g. `https://gate.example.com`. */
  readonly gate: string;
  readonly key: InstanceKey;
  readonly grant: GrantTokens;
  /** For tests and unusual runtimes. */
  readonly fetch?: typeof globalThis.fetch;
}

/** `refused`: the gate says that the grant is not to be renewed. `failed`: it said nothing of the kind. */
export type Renewal = "renewed" | "refused" | "failed";

export interface HeldGrant {
  /** The gate's. */
  readonly origin: string;
  /** Since when the gate has refused to renew; undefined while it has not. It may be a pause, so it may pass. */
  readonly refusedSinceMs: number | undefined;
  /** Headers that let one request pass. Renews first where that is due. `url`: as it will be sent. */
  authorize(method: string, url: string): Promise<{ readonly Authorization: string; readonly DPoP: string }>;
  /** For the child whose key has this thumbprint, and for nobody else: see `delegate.ts`. Renews first where that is due. */
  delegate(child: string): Promise<{ readonly subject_token: string; readonly subject_token_proof: string }>;
  /** Ends the child with this thumbprint, and all below it. Also true where it had ended before, or is no child of this instance. */
  endChild(child: string): Promise<boolean>;
  /** Renews now, due or not, once for all who ask meanwhile. */
  renew(): Promise<Renewal>;
  /** Gives the grant back (RFC 7009): all permissions of the instance end. False: the gate did not say so. */
  revoke(): Promise<boolean>;
}

/** Renewed when less than this is left, so that no call leaves with a grant that expires on the way. */
const RENEW_AHEAD_MS = 30_000;
/** After a refusal: a paused instance is refused like a killed one, and does not learn which it is. */
const REFUSED_AGAIN_MS = 30_000;
const FAILED_AGAIN_MS = 1_000;
const TIMEOUT_MS = 10_000;
/** RFC 9278: whatever is bound to the key of this thumbprint. */
const KEY_URI = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:";

/** A grant and its key in use: signs for requests, renews ahead of the expiry, and gives back. */
export function createHeldGrant(options: HeldGrantOptions): HeldGrant {
  const send = options.fetch ?? globalThis.fetch;
  const origin = new URL(options.gate).origin;
  const { key } = options;
  let tokens = options.grant;
  let renewAtMs = renewalTime(tokens);
  let renewing: Promise<Renewal> | undefined;
  let refusedSinceMs: number | undefined;

  /** @param token that is shown beside the key */
  const post = async (path: string, form: Record<string, string>, token?: string): Promise<Response> =>
    send(`${origin}${path}`, {
      method: "POST",
      body: new URLSearchParams(form),
      headers: {
        DPoP: await createProof(key, "POST", `${origin}${path}`, token),
        ...(token === undefined ? {} : { Authorization: `DPoP ${token}` }),
      },
      redirect: "manual",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });

  async function askToRenew(): Promise<Renewal> {
    if (tokens.refresh_token === undefined) return "refused";
    const answer = await post("/oauth/token", { grant_type: "refresh_token", refresh_token: tokens.refresh_token });
    const body = (await answer.json()) as Partial<GrantTokens> & { error?: unknown };
    if (!answer.ok) return answer.status === 400 && body.error === "invalid_grant" ? "refused" : "failed";
    if (typeof body.access_token !== "string" || typeof body.expires_in !== "number") return "failed";
    tokens = { refresh_token: tokens.refresh_token, ...(body as GrantTokens) };
    return "renewed";
  }

  /** Never rejects: what a failed renewal means for a call, the gate says to the call. */
  async function renewOnce(): Promise<Renewal> {
    const renewal = await askToRenew().catch((): Renewal => "failed");
    if (renewal === "renewed") {
      renewAtMs = renewalTime(tokens);
      refusedSinceMs = undefined;
    } else if (renewal === "refused") {
      renewAtMs = Date.now() + REFUSED_AGAIN_MS;
      refusedSinceMs ??= Date.now();
    } else renewAtMs = Date.now() + FAILED_AGAIN_MS;
    return renewal;
  }

  const renew = (): Promise<Renewal> => {
    renewing ??= renewOnce().finally(() => {
      renewing = undefined;
    });
    return renewing;
  };

  /** RFC 7009. `shown`: the grant of a parent, who speaks for another than itself. */
  async function handBack(token: string, shown?: string): Promise<boolean> {
    try {
      const answer = await post("/oauth/revoke", { token }, shown);
      await answer.body?.cancel();
      return answer.ok;
    } catch {
      return false;
    }
  }

  return {
    origin,
    get refusedSinceMs() {
      return refusedSinceMs;
    },
    renew,
    async authorize(method, url) {
      if (Date.now() >= renewAtMs) await renew();
      const { access_token } = tokens;
      return { Authorization: `DPoP ${access_token}`, DPoP: await createProof(key, method, url, access_token) };
    },
    async delegate(child) {
      if (Date.now() >= renewAtMs) await renew();
      const { access_token } = tokens;
      const subject_token_proof = await createDelegationProof(key, `${origin}/oauth/token`, access_token, child);
      return { subject_token: access_token, subject_token_proof };
    },
    async endChild(child) {
      if (Date.now() >= renewAtMs) await renew();
      return handBack(KEY_URI + child, tokens.access_token);
    },
    revoke: () => handBack(tokens.refresh_token ?? tokens.access_token),
  };
}

const renewalTime = ({ expires_in, refresh_token }: GrantTokens): number =>
  refresh_token === undefined
    ? Number.POSITIVE_INFINITY
    : Date.now() + Math.max(expires_in * 1000 - RENEW_AHEAD_MS, expires_in * 500);
