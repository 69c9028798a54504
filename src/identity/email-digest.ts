import { createHash } from "node:crypto";

/** Stable, and fit for keys and records, where an address itself has no place. Pure. */
export const emailDigest = (address: string): string =>
  createHash("sha256")
    .update(JSON.stringify(["email", address.trim().toLowerCase()]))
    .digest("base64url");
