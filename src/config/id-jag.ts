import * as z from "zod";
import { entries } from "./layers.ts";
import { clientName } from "./names.ts";

/** Cross App Access: identity assertions of this provider (ID-JAG), as a human's word beside its ID tokens. */
export const idJag = z.strictObject({
  enabled: z.boolean().default(true),
  /** What `tenant` must say, of a provider with several; left out: a provider with one, and no `tenant`. */
  tenant: z.string().min(1).optional(),
  /** By platform: what its client is called in `client_id`, where that is not its name here. */
  clients: z.record(clientName, z.string().min(1)).default({}),
  /** By a word of `scope`: the entries that it stands for. A word that is not here stands for nothing. */
  scopes: z.record(z.string().regex(/^[!#-[\]-~]+$/, "one word of a scope (RFC 6749 §3.3)"), entries).default({}),
});

type IdJag = z.output<typeof idJag>;

/** Whether identity assertions of it are taken at all. */
export const takesIdJag = ({ idJag }: { readonly idJag?: IdJag | undefined }): boolean => idJag?.enabled === true;

interface Parts {
  readonly identityProviders: Readonly<Record<string, { readonly issuer: string; readonly idJag?: IdJag | undefined }>>;
  readonly platforms: Readonly<Record<string, { readonly identityProvider: string }>>;
  readonly upstreams: Readonly<Record<string, unknown>>;
}

/**
 * Each `client_id` of an issuer means one platform, whatever the provider is called here; of an issuer's tenants there is one; and each
 * entry is of an upstream that there is.
 */
export function findIdJagFaults({ identityProviders, platforms, upstreams }: Parts) {
  const issuerOf = (provider: string) => own(identityProviders, provider)?.issuer;
  const idOf = (name: string) =>
    own(own(identityProviders, platforms[name]!.identityProvider)?.idJag?.clients ?? {}, name) ?? name;
  return Object.entries(identityProviders).flatMap(([provider, { idJag }]) => {
    const at = ["identityProviders", provider, "idJag"];
    const clients = idJag?.clients ?? {};
    const ofProvider = Object.keys(platforms).filter((name) => platforms[name]!.identityProvider === provider);
    const ofIssuer = Object.keys(platforms).filter(
      (name) => issuerOf(platforms[name]!.identityProvider) === issuerOf(provider),
    );
    const namesOf = (id: string) => ofIssuer.filter((name) => idOf(name) === id);
    // A human is known by issuer and `sub`, and one `sub` is somebody else at each tenant (draft-ietf-oauth-identity-assertion-authz-grant).
    const first = Object.keys(identityProviders).find(
      (other) => takesIdJag(identityProviders[other]!) && issuerOf(other) === issuerOf(provider),
    );
    const isOfAnother =
      idJag?.enabled === true && first !== undefined && identityProviders[first]!.idJag?.tenant !== idJag.tenant;
    return [
      ...(isOfAnother
        ? [
            {
              path: [...at, "tenant"],
              message: `not that of ${first}, which has the same issuer: one sub is two people`,
            },
          ]
        : []),
      ...Object.entries(clients).flatMap(([name, id]) =>
        !ofProvider.includes(name)
          ? [{ path: [...at, "clients", name], message: `no platform "${name}" with this provider` }]
          : namesOf(id).length > 1
            ? [{ path: [...at, "clients", name], message: "the client_id of another platform" }]
            : [],
      ),
      ...Object.entries(idJag?.scopes ?? {}).flatMap(([word, layer]) =>
        layer.flatMap(({ upstream }, i) =>
          Object.hasOwn(upstreams, upstream)
            ? []
            : [{ path: [...at, "scopes", word, i, "upstream"], message: `no upstream "${upstream}" under upstreams` }],
        ),
      ),
    ];
  });
}

const own = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;
