import type { CredentialOf } from "../../config/credential.ts";
import { readFact } from "../../scope/fact.ts";
import type { CredentialKind } from "../credential-kind.ts";

/** A key in the URL. The URL that holds it is made when the call leaves, and is known to nobody else. */
export const query: CredentialKind<CredentialOf<"query">> = {
  place: ({ parameter }) => ({ in: "query", parameter }),
  /** A second key would be one that the upstream may take instead: then the agent acts as somebody else. */
  findFault({ parameter }, { call }) {
    const own = readFact({ source: "query", name: parameter }, { ...call, body: { kind: "none" } }, new Map());
    return own.ok && own.value === undefined
      ? undefined
      : "a query parameter that is, or may be read as, the credential's";
  },
  source: { kind: "secret", secret: (config) => config.secret },
};
