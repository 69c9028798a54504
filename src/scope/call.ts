/** Any value that JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/**
 * What a rule may know of a request's body. `opaque` is a body that no rule asked for, or that cannot be read as
 * JSON without ambiguity: a predicate on it cannot be evaluated, and so prohibits.
 */
export type BodyFacts =
  | { readonly kind: "none" }
  | { readonly kind: "json"; readonly value: Json }
  | { readonly kind: "opaque" };

/**
 * The canonical facts of a request, which rules speak of. Only `describe` makes one for a live request.
 * Plain data: it crosses an RPC.
 */
export interface Call {
  readonly upstream: string;
  /** Upper case, as received. */
  readonly method: string;
  /** The path below the upstream, split at `/`, each segment percent-decoded once. `/a/b` is `["a", "b"]`, `/` is `[""]`. */
  readonly segments: readonly string[];
  /** Query parameters in their order, percent-decoded. */
  readonly query: readonly (readonly [name: string, value: string])[];
  readonly body: BodyFacts;
}
