import type { Config, Limits } from "../config/define.ts";
import type { Json } from "../scope/call.ts";
import type { Asked, Spent } from "./carve.ts";

/** What the token endpoint, a parent and its children say to each other. Plain data over RPC. */

/** When its children end at the latest. Who can't renew, as the configuration is now, lives no longer than its grant. */
export const endOfChildrenMs = (
  { refreshDigest, task }: { readonly refreshDigest: string | null; readonly task: { readonly deadlineMs: number } },
  grant: { readonly expiresAtMs: number },
  { grants }: Pick<Config, "grants">,
): number =>
  refreshDigest === null || !grants.refreshTokens ? Math.min(task.deadlineMs, grant.expiresAtMs) : task.deadlineMs;

export interface DelegateRequest {
  /** Of the parent's key, for this child alone. Spent here, once. */
  readonly proof: { readonly jti: string; readonly issuedAtMs: number };
  /** The parent's grant, by which it asks. */
  readonly grant: { readonly id: string; readonly expiresAtMs: number };
  readonly child: {
    readonly instance: string;
    readonly agent: string;
    readonly agentVersion: string;
    /** Id of its first grant: with the instance's it names this one delegation. */
    readonly grant: string;
    readonly purpose: string;
    readonly deadlineMs: number;
    readonly scope: readonly Json[];
  };
  /** What the child's own agent may have. */
  readonly ceiling: Limits;
  /** Nothing asked of a limit: a share of what is left of it. */
  readonly asked: Asked;
  readonly deployment: string;
}

export type DelegateAnswer =
  | { readonly delegated: true; readonly limits: Limits; readonly tokens: number }
  | { readonly delegated: false; readonly refusal: DelegateRefusal };

export type DelegateRefusal =
  /** Stopped, over, or never enrolled. */
  | { readonly kind: "dead" }
  | { readonly kind: "unavailable" }
  | { readonly kind: "replay" }
  /** This key is its own, an ancestor's, or one that it has delegated to. */
  | { readonly kind: "known-key" }
  | { readonly kind: "agent" }
  | { readonly kind: "depth" }
  | { readonly kind: "breadth" }
  | { readonly kind: "total" }
  | { readonly kind: "deadline" }
  /** `limit`: of which too little is left. */
  | { readonly kind: "limit"; readonly limit: string };

/** What a parent hears of a child that it wants to end. `absent`: it is none of its children, and never will be. */
export type EndAnswer = "ending" | "absent";

export interface EndChildRequest {
  readonly child: string;
  /** Of the parent's key, and spent here, once. */
  readonly proof: { readonly jti: string; readonly issuedAtMs: number };
  /** Id of the grant by which it asks. */
  readonly grant: string;
  readonly deployment: string;
}

/** `unknown`: no living child of this instance has that id. `unheard`: it is to end, and has not acknowledged it. */
export type EndChildAnswer = "ended" | "unheard" | "unknown" | "replay";

export interface FamilyCalls {
  /** Reserves for a child what it may spend, on record, before anything of the child exists. */
  delegate(request: DelegateRequest): Promise<DelegateAnswer>;
  /** Whether the parent still lives, now that the child is enrolled. A grant of the child is signed only after a true. */
  confirmChild(child: string, grant: string): Promise<boolean>;
  /** A delegation that came to nothing: the child is ended, if there is one, and what it has not spent comes back. */
  disown(child: string, grant: string): Promise<void>;
  /** The parent ends one of its children. */
  endChild(request: EndChildRequest): Promise<EndChildAnswer>;
  /** The child's word that it spends no more, and what it and all below it have spent. Said again it changes nothing. `grant`: its first. */
  childEnded(child: string, spent: Spent, grant: string): Promise<true>;
  /** A parent ends the child of this delegation. One that is not enrolled can't be any more. */
  endAsChildOf(parent: string, deployment: string, grant: string): Promise<EndAnswer>;
}
