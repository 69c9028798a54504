import type { CredentialOf } from "../../config/credential.ts";
import { ok } from "../../result.ts";
import { type CredentialKind, NOT_NARROWED } from "../credential-kind.ts";
import { BEARER } from "../placing.ts";
import { askTokenEndpoint } from "../token-endpoint.ts";

/** RFC 6749 §4.4: the gate is the client, and all who call share one token. */
export const oauthClientCredentials: CredentialKind<CredentialOf<"oauth-client-credentials">> = {
  place: () => BEARER,
  source: {
    kind: "token",
    isOfInstance: false,
    narrow: () => ok(NOT_NARROWED),
    obtain: (config, _wanted, { env }) => askTokenEndpoint(config, { grant_type: "client_credentials" }, env),
  },
};
