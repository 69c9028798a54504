// OAuth 2.0 Device Authorization Grant (RFC 8628) with OpenID Connect, by a certified relying party's library.

import { CommandError, EXIT } from "./command.ts";

export interface Confirmation {
  readonly verificationUri: string;
  readonly verificationUriComplete: string | null;
  readonly userCode: string;
}

/** An ID token for a public client. `onCode` is told where a person confirms. */
export async function signInByDevice(
  issuer: URL,
  clientId: string,
  scope: string,
  onCode: (confirmation: Confirmation) => void,
): Promise<string> {
  // Of all commands this one alone needs it.
  const oidc = await import("openid-client");
  try {
    const relyingParty = await oidc.discovery(issuer, clientId, undefined, oidc.None(), {
      // In the clear on loopback alone: nothing else gets this far.
      execute: [oidc.enableNonRepudiationChecks, ...(issuer.protocol === "http:" ? [oidc.allowInsecureRequests] : [])],
    });
    const device = await oidc.initiateDeviceAuthorization(relyingParty, { scope });
    onCode({
      verificationUri: device.verification_uri,
      verificationUriComplete: device.verification_uri_complete ?? null,
      userCode: device.user_code,
    });
    const { id_token } = await oidc.pollDeviceAuthorizationGrant(relyingParty, device);
    if (id_token === undefined)
      throw new CommandError(EXIT.forbidden, `${issuer.href} gave no ID token: is openid in the scope?`);
    return id_token;
  } catch (cause) {
    throw cause instanceof CommandError ? cause : explain(issuer, cause);
  }
}

/** What the provider has decided is one thing, that it can't be asked another. */
function explain({ href }: URL, cause: unknown): CommandError {
  const {
    message,
    error,
    error_description,
    cause: inner,
  } = cause as Error & {
    error?: string;
    error_description?: string;
    cause?: { code?: string; message?: string; status?: number };
  };
  if (error !== undefined) {
    const said = error_description === undefined ? error : `${error}: ${error_description}`;
    return new CommandError(EXIT.forbidden, `${href} does not sign in: ${said}`);
  }
  // The library's own codes say less than its messages, and those of an answer less than its status.
  const { code } = inner ?? {};
  const why = code === undefined || code.startsWith("OAUTH_") ? (inner?.message ?? message) : code;
  const status = inner?.status === undefined ? "" : ` ${inner.status}`;
  return new CommandError(EXIT.unreachable, `No sign-in at ${href}: ${why}${status}`);
}
