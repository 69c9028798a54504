import { DurableObject } from "cloudflare:workers";
import config from "#config";
import { type Env, parseDeployment } from "../src/deployment.ts";
import { err, type Result } from "../src/result.ts";
import type { CredentialBrokerCalls, TokenAnswer, TokenRequest } from "../src/upstream/broker-contract.ts";
import type { FetchedToken } from "../src/upstream/credential-kind.ts";
import { kindOf } from "../src/upstream/credentials/table.ts";
import { handToWorker } from "../src/upstream/placing.ts";
import type { Secret } from "../src/upstream/secret.ts";

/** A token is replaced this long before its end, or a fifth of its life where that is less. */
const REFRESH_BEFORE_MS = 60_000;
/** While its successor can't be had, a token serves until this long before its end: a call takes time. */
const LAST_USE_BEFORE_MS = 5_000;
/** After a failure, and after a token that was replaced because it was rejected: twice as long each time. */
const BACKOFF_MS = 1_000;
const BACKOFF_MAX_MS = 60_000;
/** For `refreshAtMs`: over already. */
const REJECTED = Number.NEGATIVE_INFINITY;

interface HeldToken {
  readonly id: string;
  readonly token: Secret;
  readonly refreshAtMs: number;
  readonly lastUseAtMs: number;
}

/**
 * Fetches the tokens of one upstream and one narrowing, and hands them to Workers: the one place where many who need a
 * token at once can wait for one request (a Worker must not share a promise between requests). All of it is memory: a
 * broker that starts anew asks anew, and no token is ever stored.
 */
export class CredentialBroker extends DurableObject<Env> implements CredentialBrokerCalls {
  #held: HeldToken | null = null;
  #obtaining: Promise<Result<null, string>> | null = null;
  #failures = 0;
  #lastFailure = "";
  #mayFetchAtMs = 0;
  #rejections = 0;
  #rejectedAtMs = 0;

  async token(request: TokenRequest): Promise<TokenAnswer> {
    if (request.rejected !== null) this.#reject(request.rejected, Date.now());
    const fresh = this.#held;
    if (fresh !== null && Date.now() < fresh.refreshAtMs) return given(fresh, Date.now());
    const fetched = await this.#obtainOnce(request);
    const nowMs = Date.now();
    const held = this.#held;
    if (held !== null && nowMs < held.lastUseAtMs) return given(held, nowMs);
    return { given: false, reason: fetched.ok ? "the token did not live long enough" : fetched.error };
  }

  /** However many ask, one request runs; and after a failure none, until its time is over. */
  #obtainOnce(request: TokenRequest): Promise<Result<null, string>> {
    if (this.#obtaining !== null) return this.#obtaining;
    if (Date.now() < this.#mayFetchAtMs) return Promise.resolve(err(this.#lastFailure));
    const fetching = this.#obtain(request).finally(() => {
      this.#obtaining = null;
    });
    this.#obtaining = fetching;
    this.ctx.waitUntil(fetching);
    return fetching;
  }

  async #obtain({ upstream, narrowing, delegation }: TokenRequest): Promise<Result<null, string>> {
    const fetched = await this.#ask({ upstream, narrowing, delegation });
    const nowMs = Date.now();
    if (!fetched.ok) {
      this.#lastFailure = fetched.error;
      this.#mayFetchAtMs = nowMs + backoffMs(this.#failures++);
      // For the operator. It names the upstream and what failed, and holds nothing that was sent or answered.
      console.error("credential", upstream, fetched.error);
      return fetched;
    }
    this.#failures = 0;
    const { token, lifeMs } = fetched.value;
    this.#held = {
      id: crypto.randomUUID(),
      token,
      refreshAtMs: nowMs + lifeMs - Math.min(REFRESH_BEFORE_MS, lifeMs / 5),
      lastUseAtMs: nowMs + lifeMs - Math.min(LAST_USE_BEFORE_MS, lifeMs / 10),
    };
    return { ok: true, value: null };
  }

  /** What is to be asked, and where, is in the configuration: a request only says for which upstream, and how narrow. */
  async #ask({
    upstream,
    narrowing,
    delegation,
  }: Omit<TokenRequest, "rejected">): Promise<Result<FetchedToken, string>> {
    try {
      const deployment = parseDeployment(this.env, config);
      const known = deployment.config.upstreams;
      const own = Object.hasOwn(known, upstream) ? known[upstream] : undefined;
      if (own === undefined) return err("no such upstream");
      const { source } = kindOf(own.credential);
      if (source?.kind !== "token") return err("its credential is no token");
      return await source.obtain(own.credential, { narrowing, delegation, baseUrl: own.baseUrl }, deployment);
    } catch {
      return err("the token could not be asked for");
    }
  }

  /**
   * The upstream answered 401 to it. Another is fetched at once; where that can't be had, this one serves on, for a 401 may
   * be of what the agent asked for, and one agent's must not take everybody's token. Where what comes after it is rejected
   * as well, that is not the token's fault either, and it is not replaced for a while: no loop, and no call that waits for one.
   */
  #reject(id: string, nowMs: number): void {
    if (this.#held?.id !== id || this.#held.refreshAtMs === REJECTED) return;
    if (nowMs - this.#rejectedAtMs > 2 * BACKOFF_MAX_MS) this.#rejections = 0;
    if (this.#rejections > 0 && nowMs < this.#rejectedAtMs + backoffMs(this.#rejections - 1)) return;
    this.#rejections++;
    this.#rejectedAtMs = nowMs;
    this.#held = { ...this.#held, refreshAtMs: REJECTED };
  }
}

const backoffMs = (before: number): number => Math.min(BACKOFF_MS * 2 ** before, BACKOFF_MAX_MS);

const given = ({ id, token, refreshAtMs }: HeldToken, nowMs: number): TokenAnswer => ({
  given: true,
  id,
  token: handToWorker(token),
  useForMs: Math.max(0, refreshAtMs - nowMs),
});
