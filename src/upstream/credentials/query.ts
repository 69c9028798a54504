import type { CredentialOf } from "../../config/credential.ts";
import { findSecondKey } from "../call-fault.ts";
import type { CredentialKind } from "../credential-kind.ts";

/** A key in the URL. The URL that holds it is made when the call leaves, and is known to nobody else. */
export const query: CredentialKind<CredentialOf<"query">> = {
  place: ({ parameter }) => ({ in: "query", parameter }),
  findFault: ({ parameter }, { call }) => findSecondKey(parameter, call),
  source: { kind: "secret", secret: (config) => config.secret },
};
