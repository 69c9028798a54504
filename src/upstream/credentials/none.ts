import type { CredentialOf } from "../../config/credential.ts";
import type { CredentialKind } from "../credential-kind.ts";

/** For an upstream that wants none. */
export const none: CredentialKind<CredentialOf<"none">> = { place: () => null, source: null };
