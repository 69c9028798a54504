import { createHash } from "node:crypto";

/** Small letters, but for the Kelvin sign: it would become a `k`, and another's address with it. */
const folded = (address: string): string => address.trim().replaceAll(/[^\u212a]+/g, (part) => part.toLowerCase());

/** Stable, and fit for keys and records, where an address itself has no place. Pure. */
export const emailDigest = (address: string): string =>
  createHash("sha256")
    .update(JSON.stringify(["email", folded(address)]))
    .digest("base64url");
