import type { CredentialConfig } from "../config/credential.ts";
import type { Deployment } from "../deployment.ts";
import type { DelegationFacts } from "../instance/contract.ts";
import type { Result } from "../result.ts";
import type { Call } from "../scope/call.ts";
import type { Entry } from "../scope/entry.ts";
import type { Narrowing } from "./narrowing.ts";
import type { Place } from "./placing.ts";
import type { Secret } from "./secret.ts";

export type { Narrowing } from "./narrowing.ts";

/** What a kind of credential is: a file in credentials/ and a row in its table. */
export interface CredentialKind<C extends CredentialConfig> {
  /** Null: none is sent. */
  place(config: C): Place | null;
  /**
   * Pure, before the call is admitted: why this call can't have the credential, for the record; else undefined. Absent: any
   * that the grant allows can.
   */
  findFault?(config: C, asked: AskedCall): string | undefined;
  readonly source: SecretSource<C> | TokenSource<C> | null;
}

export interface AskedCall {
  readonly call: Omit<Call, "body">;
  /** The grant's. */
  readonly entries: readonly Entry[];
}

/** It is a secret of the Worker as it is. */
export interface SecretSource<C> {
  readonly kind: "secret";
  secret(config: C): string;
}

/** It is a token that must be fetched, and is kept while it lives. */
export interface TokenSource<C> {
  readonly kind: "token";
  /** Pure: what the token is to be good for, by the grant. Grants of which this is equal share one. */
  narrow(config: C, upstream: string, entries: readonly Entry[]): Result<Narrowing, string>;
  /** Whether it is of one instance alone, which states who it is. */
  readonly isOfInstance: boolean;
  /** Asked by the broker alone. An error names what failed and repeats nothing of what was answered. */
  obtain(config: C, wanted: WantedToken, deployment: Deployment): Promise<Result<FetchedToken, string>>;
}

export interface WantedToken {
  readonly narrowing: Narrowing;
  readonly delegation: DelegationFacts | null;
  /** Where the upstream itself is: GitHub gives tokens there. */
  readonly baseUrl: string;
}

export interface FetchedToken {
  readonly token: Secret;
  readonly lifeMs: number;
}

export const NOT_NARROWED: Narrowing = { repositories: null, permissions: null };
