import type { CredentialConfig } from "./credential.ts";
import { foldHeaderName } from "./forward-headers.ts";

/** Pure: which upstreams are asked for parts of an answer, and how that is said. */

interface Upstream {
  readonly ranges: boolean;
  readonly credential: CredentialConfig;
  readonly delegation?: object | undefined;
}

/**
 * An answer that comes in parts is looked through part by part, and a credential that is cut between two of them is found in
 * neither. So nothing is asked for in parts that could hold one, unless the configuration says that this upstream shows none.
 */
export const takesRanges = ({ ranges, credential, delegation }: Upstream): boolean =>
  ranges || (credential.kind === "none" && delegation === undefined);

/** RFC 9110 §14.2 and §13.1.5. A server that is not asked for a range gives the whole, which is what any client of one must take. */
const asksForRange = (name: string): boolean => name === "range" || name === "if-range";

export const withoutRanges = <H extends readonly [name: string, value: string]>(headers: readonly H[]): readonly H[] =>
  headers.filter(([name]) => !asksForRange(name));

/** What some servers take for `Range`. */
const OTHER_NAMES = new Set(["request-range", "x-ms-range"]);

export function findRangeFaults({
  upstreams,
}: {
  readonly upstreams: Readonly<Record<string, Upstream & { readonly forwardHeaders: readonly string[] }>>;
}) {
  return Object.entries(upstreams).flatMap(([name, upstream]) =>
    upstream.forwardHeaders.flatMap((header, i) => {
      const folded = foldHeaderName(header);
      const isRange = asksForRange(folded) || OTHER_NAMES.has(folded);
      return isRange && !takesRanges(upstream)
        ? [{ path: ["upstreams", name, "forwardHeaders", i], message: "asks for a part: `ranges: true` lets it pass" }]
        : [];
    }),
  );
}
