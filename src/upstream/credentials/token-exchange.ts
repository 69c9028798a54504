import type { CredentialOf } from "../../config/credential.ts";
import { signDelegation } from "../../delegation/signed.ts";
import { err, ok } from "../../result.ts";
import { type CredentialKind, NOT_NARROWED } from "../credential-kind.ts";
import { BEARER } from "../placing.ts";
import { askTokenEndpoint } from "../token-endpoint.ts";

/** RFC 8693 §2.1: the gate states who acts for whom, and the upstream's authorization server makes of it what it will. */
export const tokenExchange: CredentialKind<CredentialOf<"token-exchange">> = {
  place: () => BEARER,
  source: {
    kind: "token",
    isOfInstance: true,
    narrow: () => ok(NOT_NARROWED),
    async obtain(config, { delegation }, deployment) {
      if (delegation === null) return err("nobody stated who acts");
      const parameters = {
        grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token: signDelegation(deployment, delegation, { audience: config.subjectAudience, nowMs: Date.now() }),
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
        requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
      };
      return askTokenEndpoint(config, parameters, deployment.env);
    },
  },
};
