import type { DelegationFacts } from "../instance/contract.ts";
import type { Narrowing } from "./credential-kind.ts";

/** What Workers and a `CredentialBroker` say to each other. Answers are values; a call that rejects means broken infrastructure. */

export interface TokenRequest {
  readonly upstream: string;
  readonly narrowing: Narrowing;
  readonly delegation: DelegationFacts | null;
  /** The id of a token that the upstream answered 401 to; null: none since. */
  readonly rejected: string | null;
}

export type TokenAnswer =
  | {
      readonly given: true;
      /** Names this token, and tells nothing of it. */
      readonly id: string;
      readonly token: string;
      /** On the broker's clock: from then on another is asked for. */
      readonly useForMs: number;
    }
  | { readonly given: false; readonly reason: string };

export interface CredentialBrokerCalls {
  token(request: TokenRequest): Promise<TokenAnswer>;
}
