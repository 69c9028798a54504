import * as z from "zod";
import { agentName, positive, secretName } from "./names.ts";

export const admins = z.strictObject({
  identityProvider: z.string(),
  /** The `aud` of the tokens that admins present. */
  audience: z.string().min(1),
  /** Older tokens are not taken, however long they would be valid. */
  tokenMaxAgeSeconds: positive.max(86_400).default(3_600),
  /**
   * For when the identity provider is down: by name, the secret that holds the SHA-256, in hex, of a key of at least
   * 256 random bits. Who presents the key as a bearer token can kill, and nothing else.
   */
  breakGlass: z.record(agentName, secretName).default({}),
  /** Groups of the identity provider that hold each role. */
  roles: z.strictObject({
    viewer: z.array(z.string()).default([]),
    operator: z.array(z.string()).default([]),
    auditor: z.array(z.string()).default([]),
    /** Decides about calls that the boundaries hold back for approval. */
    approver: z.array(z.string()).default([]),
  }),
});
