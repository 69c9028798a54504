/**
 * What the request line said, taken from the URL's text and not from a parser that would tidy it: `new URL` removes
 * dot segments before anyone could refuse them.
 */
export interface Target {
  /** First path segment. Empty for `/`. */
  readonly upstream: string;
  /** `/<upstream>/rest` as sent. */
  readonly rawPath: string;
  /** What follows the upstream, `/rest` as sent; empty where nothing follows. */
  readonly rawRest: string;
  /** With its `?`, as sent; empty where there is none. */
  readonly rawQuery: string;
}

export function parseTarget(url: string): Target {
  const [, path = "", query = ""] = /^[a-z]+:\/\/[^/?#]*([^?#]*)(\?[^#]*)?/i.exec(url) ?? [];
  const rawPath = path === "" ? "/" : path;
  const slash = rawPath.indexOf("/", 1);
  return {
    upstream: slash === -1 ? rawPath.slice(1) : rawPath.slice(1, slash),
    rawPath,
    rawRest: slash === -1 ? "" : rawPath.slice(slash),
    rawQuery: query === "?" ? "" : query,
  };
}
