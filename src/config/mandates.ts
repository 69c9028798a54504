import * as z from "zod";
import { positive } from "./names.ts";

/** Approval in advance, by humans, of work that nobody is there to delegate. */
export const mandates = z.strictObject({
  identityProvider: z.string(),
  /** The `aud` of the tokens that humans present here: a client of its own, neither a platform's nor the admins'. */
  audience: z.string().min(1),
  /** Who approves has signed in a moment ago. */
  tokenMaxAgeSeconds: positive.max(86_400).default(600),
  /** The longest that one may be approved for. */
  longestSeconds: positive.max(31_536_000).default(2_592_000),
  /** Of one human, at a time. */
  mostStanding: positive.max(1_000).default(100),
});

interface Parts {
  readonly mandates?: z.output<typeof mandates> | undefined;
  readonly admins: { readonly identityProvider: string; readonly audience: string };
  readonly platforms: Readonly<Record<string, { readonly identityProvider: string; readonly subjectAudience: string }>>;
  readonly identityProviders: Readonly<Record<string, { readonly issuer: string }>>;
}

/** A token that was issued for one door opens no other, whatever the provider is called here. */
export function findMandateFaults({ mandates, admins, platforms, identityProviders }: Parts) {
  if (mandates === undefined) return [];
  const { identityProvider, audience } = mandates;
  if (!Object.hasOwn(identityProviders, identityProvider))
    return [
      { path: ["mandates", "identityProvider"], message: `no provider "${identityProvider}" under identityProviders` },
    ];
  const issuerOf = (name: string) =>
    Object.hasOwn(identityProviders, name) ? identityProviders[name]?.issuer : undefined;
  const others: [string, string, string][] = [
    ["admins.audience", admins.identityProvider, admins.audience],
    ...Object.entries(platforms).map(([name, { identityProvider, subjectAudience }]): [string, string, string] => [
      `platforms.${name}.subjectAudience`,
      identityProvider,
      subjectAudience,
    ]),
  ];
  return others
    .filter(([, provider, other]) => other === audience && issuerOf(provider) === issuerOf(identityProvider))
    .map(([name]) => ({
      path: ["mandates", "audience"],
      message: `the same as ${name}: give each its own client`,
    }));
}
