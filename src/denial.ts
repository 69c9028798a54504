/**
 * A denial is data with two faces: this union, which goes on record and to admins, and the dull answer that
 * `answerTo` makes of it for the agent. A new kind breaks the build until it has both.
 */
export type Denial =
  /** No valid grant. `code` is all that the agent is told (RFC 6750 §3.1, RFC 9449 §7.1). */
  | { readonly kind: "unauthenticated"; readonly code: CredentialError | "none"; readonly reason: string }
  /** To this caller it does not exist. */
  | { readonly kind: "absent"; readonly layer: Layer; readonly reason: string }
  | { readonly kind: "too-large"; readonly reason: string }
  | {
      readonly kind: "limited";
      readonly limit: "rate" | "concurrency";
      readonly retryAfterSeconds: number;
      readonly quota?: string;
    }
  /** `quota`: of a shared limit, which one; else the instance's own. `retryAfterSeconds`: when its period is over. */
  | {
      readonly kind: "exhausted";
      readonly budget: Budget;
      readonly retryAfterSeconds?: number;
      readonly quota?: string;
    }
  /**
   * It waits for a person. `approval` is the request that it belongs to; null: so many are open that it made none. The
   * agent is told that it is pending, and nothing of why.
   */
  | { readonly kind: "pending"; readonly approval: string | null; readonly reason: string }
  /** A state that can't be read, a record that can't be written: unknown means no. */
  | { readonly kind: "unavailable"; readonly reason: string }
  | { readonly kind: "upstream-failed"; readonly status: 502 | 504; readonly reason: string };

export type Budget = "calls" | "bytes" | `units.${string}`;

export type CredentialError = "invalid_request" | "invalid_token" | "invalid_dpop_proof";

/** Which layer decided: the steps of the way of a call that can say "does not exist", and each ceiling. */
export type Layer = "route" | "describe" | "grant" | "parent" | "entitlement" | "agent" | "boundaries" | "switch";

export const unauthenticated = (code: CredentialError | "none", reason: string): Denial => ({
  kind: "unauthenticated",
  code,
  reason,
});
export const absent = (layer: Layer, reason: string): Denial => ({ kind: "absent", layer, reason });
export const unavailable = (reason: string): Denial => ({ kind: "unavailable", reason });
