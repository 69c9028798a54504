import type { CredentialConfig, CredentialKindName, CredentialOf } from "../../config/credential.ts";
import type { CredentialKind } from "../credential-kind.ts";
import { githubApp } from "./github-app.ts";
import { header } from "./header.ts";
import { none } from "./none.ts";
import { oauthClientCredentials } from "./oauth-client-credentials.ts";
import { query } from "./query.ts";
import { tokenExchange } from "./token-exchange.ts";

/** A row for each kind. Null prototype: the kind `constructor` is as unknown as any. */
const KINDS: { readonly [K in CredentialKindName]: CredentialKind<CredentialOf<K>> } = Object.assign(
  Object.create(null),
  {
    none,
    header,
    query,
    "oauth-client-credentials": oauthClientCredentials,
    "github-app": githubApp,
    "token-exchange": tokenExchange,
  } satisfies { readonly [K in CredentialKindName]: CredentialKind<CredentialOf<K>> },
);

/** The row of a configured credential, which takes no other configuration than that one's. */
export const kindOf = (config: CredentialConfig): CredentialKind<CredentialConfig> =>
  KINDS[config.kind] as CredentialKind<CredentialConfig>;
