/** Plain data with its members in one order: its digest is the broker's name. */
export interface Narrowing {
  /** Null, each: as wide as the credential itself is. */
  readonly repositories: readonly string[] | null;
  readonly permissions: readonly (readonly [permission: string, access: "read" | "write"])[] | null;
}
