import * as z from "zod";
import { type CredentialConfig, credentialHeaderOf } from "./credential.ts";
import { findForwardingFault, foldHeaderName } from "./forward-headers.ts";

/** What frames a request, or is the gate's or the runtime's own to say. */
const NO_DELEGATION_HEADER =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|host|expect|content-.*|accept.*|dpop|cookie|cf-.*|set-cookie)$/i;

/** For an upstream that wants to know who acts, and for whom: a signed statement with every call. */
export const delegation = z.strictObject({
  header: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,64}$/, "a header name")
    .refine((name) => !NO_DELEGATION_HEADER.test(name), "a header of its own, not Host, Content-* or the like")
    .default("Portcullis-Delegation"),
  /** The `aud` that the upstream looks for; left out: its base URL. */
  audience: z.string().min(1).max(2_048).optional(),
});

interface Upstream {
  readonly baseUrl: string;
  readonly delegation?: z.output<typeof delegation> | undefined;
}

export const delegationAudience = ({ baseUrl, delegation }: Upstream): string => delegation?.audience ?? baseUrl;

interface Upstreams {
  readonly upstreams: Readonly<
    Record<
      string,
      Upstream & {
        readonly forwardHeaders: readonly string[];
        readonly credential: CredentialConfig;
      }
    >
  >;
}

/**
 * The header is the gate's alone: no credential stands in it, and no agent may say it to any upstream, one that does
 * not ask for it included.
 */
export function findDelegationFaults({ upstreams }: Upstreams) {
  const all = Object.entries(upstreams);
  const reserved = new Set(
    all.flatMap(([, { delegation }]) => (delegation === undefined ? [] : [foldHeaderName(delegation.header)])),
  );
  return all.flatMap(([name, { forwardHeaders, credential, delegation }]) => {
    const own = credentialHeaderOf(credential);
    const isCredential =
      delegation !== undefined && own !== null && foldHeaderName(own) === foldHeaderName(delegation.header);
    const said = forwardHeaders.flatMap((header, i) =>
      // What the other table refuses already is said once.
      reserved.has(foldHeaderName(header)) && findForwardingFault(header, own) === undefined
        ? [{ path: ["upstreams", name, "forwardHeaders", i], message: "the header of a signed delegation" }]
        : [],
    );
    const clash = {
      path: ["upstreams", name, "delegation", "header"],
      message: "the header of the upstream's credential",
    };
    return isCredential ? [clash, ...said] : said;
  });
}
