import { err, type Result } from "../result.ts";

/** The errors of the token endpoint, by the RFC that names them. */
export type OAuthErrorCode =
  | "invalid_request" // RFC 6749 §5.2; RFC 8693 §2.2.2 for subject and actor tokens too
  | "invalid_client"
  | "invalid_grant"
  | "unauthorized_client"
  | "unsupported_grant_type"
  | "unsupported_token_type" // RFC 7009 §2.2.1
  | "invalid_scope"
  | "invalid_target" // RFC 8707 §2
  | "invalid_authorization_details" // RFC 9396 §5
  | "invalid_dpop_proof" // RFC 9449 §5
  | "temporarily_unavailable";

/**
 * A refusal of the authority. Its reader is a platform's developer, so `description` says what was wrong; nothing is
 * told to who has not authenticated, and nothing of another party ever.
 */
export interface OAuthError {
  readonly code: OAuthErrorCode;
  readonly description: string;
  readonly who?: Verified;
}

/** Whom a refusal concerns, as far as it was verified before the failure. For the journal alone. */
export interface Verified {
  readonly client?: string;
  readonly instance?: string;
  readonly human?: string;
  /** The instance that delegates. */
  readonly parent?: string;
}

export const oauthError = (code: OAuthErrorCode, description: string): OAuthError => ({ code, description });

export const failed = (code: OAuthErrorCode, description: string): { readonly ok: false; readonly error: OAuthError } =>
  err(oauthError(code, description));

/** Adds what was verified before the step that answered so. */
export const concerning = <T>(who: Verified, result: Result<T, OAuthError>): Result<T, OAuthError> =>
  result.ok ? result : err({ ...result.error, who: { ...who, ...result.error.who } });

/** RFC 6749 §5.2: 401 for a failed client authentication, else 400. */
export function oauthErrorAnswer({ code, description }: OAuthError): Response {
  const status = code === "invalid_client" ? 401 : code === "temporarily_unavailable" ? 503 : 400;
  const headers: Record<string, string> = { "Cache-Control": "no-store", Pragma: "no-cache" };
  if (status === 503) headers["Retry-After"] = "1";
  // RFC 6749 §5.2 allows printable ASCII without quote and backslash.
  const error_description = description.replace(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, "'");
  return Response.json({ error: code, error_description }, { status, headers });
}
