import { PROOF_MAX_AGE_MS } from "../src/grant/proof.ts";
import type { ProofMark } from "../src/instance/contract.ts";

/** A `jti` is kept this much longer than any proof with it is accepted, against steps of the clock. */
const JTI_MARGIN_MS = 60_000;

/** What a record keeps of a proof, so that its replay is refused. */
export const jtiOf = ({ jti, issuedAtMs }: ProofMark): { readonly id: string; readonly untilMs: number } => ({
  id: jti,
  untilMs: issuedAtMs + PROOF_MAX_AGE_MS + JTI_MARGIN_MS,
});
