import * as z from "zod";
import { parseOperation } from "../scope/template.ts";
import { httpUrl, positive, secretName } from "./names.ts";

/** What frames or routes a request, says what its body is, or is the gate's own: never a place for a credential. */
const NO_CREDENTIAL_HEADER =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|host|expect|content-.*|accept-encoding|dpop)$/i;

/** The upstream wants no credential, and gets none. */
const none = z.strictObject({ kind: z.literal("none") });

/** `{secret}` in `value` is replaced when the call leaves, by the one file that opens secrets. */
const header = z.strictObject({
  kind: z.literal("header"),
  header: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,64}$/, "a header name")
    .refine(
      (name) => !NO_CREDENTIAL_HEADER.test(name),
      "a header that carries credentials, not Host, Content-* or the like",
    ),
  secret: secretName,
  value: z.string().includes("{secret}").default("Bearer {secret}"),
});

/** A key in the URL, where the upstream takes it nowhere else. An agent's own parameter of that name is refused. */
const query = z.strictObject({
  kind: z.literal("query"),
  parameter: z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/, "the name of a query parameter"),
  secret: secretName,
});

/** RFC 6749 §2.3.1, and RFC 7523 §2.2 with a private JWK (`alg`, `kid`) as the secret. */
const clientAuthentication = z.discriminatedUnion("method", [
  z.strictObject({ method: z.enum(["client_secret_basic", "client_secret_post"]), secret: secretName }),
  z.strictObject({ method: z.literal("private_key_jwt"), secret: secretName, audience: httpUrl.optional() }),
]);

/** RFC 6749 §3.3: words of visible ASCII, without `"` and `\`. */
const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, "an OAuth scope");
const oauthClient = {
  tokenEndpoint: httpUrl,
  clientId: z.string().regex(/^[\x20-\x7e]{1,256}$/, "a client id"),
  authentication: clientAuthentication,
  scope: scope.optional(),
  audience: z.string().min(1).max(1024).optional(),
  /** RFC 8707. */
  resource: httpUrl.optional(),
};

/** RFC 6749 §4.4: one token for all who call. */
const clientCredentials = z.strictObject({ kind: z.literal("oauth-client-credentials"), ...oauthClient });

/** RFC 8693 at the upstream's authorization server: a token for each instance, for what the gate states of it. */
const tokenExchange = z.strictObject({
  kind: z.literal("token-exchange"),
  ...oauthClient,
  /** `aud` of the statement: the authorization server as it names itself. */
  subjectAudience: z.string().min(1).max(1024),
});

const githubPermission = z.strictObject({
  operations: z
    .array(
      z.string().transform((text, ctx) => {
        const operation = parseOperation(text);
        if (operation.ok) return operation.value;
        ctx.addIssue({ code: "custom", message: operation.error });
        return z.NEVER;
      }),
    )
    .min(1)
    .readonly(),
  /** As GitHub names it: `issues`, `contents`, `pull_requests`. */
  permission: z.string().regex(/^[a-z][a-z_]{0,63}$/, "the name of a permission"),
  access: z.enum(["read", "write"]),
});

/** Installation tokens of a GitHub App, for no more than the grant's repositories, and the permissions that its operations need. */
const githubApp = z.strictObject({
  kind: z.literal("github-app"),
  /** The app's id, or its client id. */
  appId: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, "an app id"),
  installationId: positive,
  /** Whose repositories the installation has. */
  account: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "the login of an organisation or a user"),
  /** PKCS#8 in PEM. */
  privateKey: secretName,
  permissions: z.array(githubPermission).min(1).readonly(),
  /** What can't be narrowed is refused. False: it goes out as wide as the installation is. */
  requireNarrowing: z.boolean().default(true),
});

export const credential = z.discriminatedUnion("kind", [
  none,
  header,
  query,
  clientCredentials,
  githubApp,
  tokenExchange,
]);

export type CredentialConfig = z.output<typeof credential>;
export type CredentialKindName = CredentialConfig["kind"];
export type CredentialOf<K extends CredentialKindName> = Extract<CredentialConfig, { readonly kind: K }>;
export type OAuthClient = CredentialOf<"oauth-client-credentials"> | CredentialOf<"token-exchange">;

/** A secret that must be there when the Worker starts, and what it must look like. */
export interface SecretUse {
  readonly name: string;
  /** `sent`: it goes to the upstream itself, so its echo must be told from chance. */
  readonly form: "sent" | "any" | "pem" | "jwk" | "webhook";
}

export function secretsOf(config: CredentialConfig): readonly SecretUse[] {
  switch (config.kind) {
    case "none":
      return [];
    case "header":
    case "query":
      return [{ name: config.secret, form: "sent" }];
    case "oauth-client-credentials":
    case "token-exchange": {
      const { secret, method } = config.authentication;
      return [{ name: secret, form: method === "private_key_jwt" ? "jwk" : "any" }];
    }
    case "github-app":
      return [{ name: config.privateKey, form: "pem" }];
  }
}

/** The header that the gate writes itself; null: none. */
export function credentialHeaderOf(config: CredentialConfig): string | null {
  switch (config.kind) {
    case "none":
    case "query":
      return null;
    case "header":
      return config.header;
    case "oauth-client-credentials":
    case "token-exchange":
    case "github-app":
      return "authorization";
  }
}

interface Credentialed {
  readonly credential: CredentialConfig;
}

/** The parameter of a query that holds the credential, and is nobody else's to say or to see; null: none does. */
export const hiddenParameterOf = ({ credential }: Credentialed): string | null =>
  credential.kind === "query" ? credential.parameter : null;

/** Whether the credential states who acts, for whom: what only the instance knows. */
export const statesDelegation = ({ credential }: Credentialed): boolean => credential.kind === "token-exchange";

/** Where a token is asked for, that is no path of the upstream's own base. */
export const tokenEndpointOf = (config: CredentialConfig): string | null =>
  config.kind === "oauth-client-credentials" || config.kind === "token-exchange" ? config.tokenEndpoint : null;
