import { parsePublicKeys, SEAL_ALGORITHMS, type VerifyingKeys } from "../grant/keys.ts";
import type { Result } from "../result.ts";

/** The public halves of the keys that may sign seals: all that a verifier trusts. */
export type SealKeys = VerifyingKeys;

/** As `/.well-known/portcullis-seal-keys.json` gives them. */
export const parseSealKeys = (jwks: unknown): Result<SealKeys, string> => parsePublicKeys(jwks, SEAL_ALGORITHMS);
