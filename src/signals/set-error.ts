/** RFC 8935 §2.4. */
export type SetErrorCode =
  | "invalid_request"
  | "invalid_key"
  | "invalid_issuer"
  | "invalid_audience"
  | "authentication_failed"
  | "access_denied";

export interface SetError {
  readonly code: SetErrorCode;
  readonly description: string;
}

export const setError = (code: SetErrorCode, description: string): SetError => ({ code, description });

const NO_STORE = { "Cache-Control": "no-store" };

/** RFC 8935 §2.3: 400, and 401 where the transmitter has not shown who it is. */
export function setErrorAnswer({ code, description }: SetError): Response {
  const isUnauthenticated = code === "authentication_failed";
  return Response.json(
    { err: code, description },
    {
      status: isUnauthenticated ? 401 : 400,
      headers: {
        ...NO_STORE,
        "Content-Language": "en",
        ...(isUnauthenticated ? { "WWW-Authenticate": "Bearer" } : {}),
      },
    },
  );
}

/** RFC 8935 §2.2: received, and the transmitter need not keep it. */
export const accepted = (): Response => new Response(null, { status: 202, headers: NO_STORE });

/** The transmitter keeps the SET and pushes it again. */
export const tryAgain = (): Response =>
  new Response(null, { status: 503, headers: { ...NO_STORE, "Retry-After": "1" } });
