import type { CredentialOf } from "../../config/credential.ts";
import type { CredentialKind } from "../credential-kind.ts";

/** A key in a header. */
export const header: CredentialKind<CredentialOf<"header">> = {
  place: (config) => ({ in: "header", name: config.header, value: config.value }),
  source: { kind: "secret", secret: (config) => config.secret },
};
