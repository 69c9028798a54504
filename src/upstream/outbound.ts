/**
 * INVARIANT: the one place from which anything leaves to another server. Never follows a redirect (it would carry the
 * credential along), never answers from a cache.
 */
export function fetchOutbound(url: string, init: RequestInit<RequestInitCfProperties>): Promise<Response> {
  return fetch(url, { ...init, redirect: "manual", cache: "no-store" });
}
