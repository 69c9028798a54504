import type { Json } from "../scope/call.ts";

/** What an instance, the desk and the admin's door say to each other of approvals. Plain data over RPC; methods answer, never throw. */

/** `approved` can still be used; `used` is over. All but `asked` and `approved` are final. */
export type ApprovalState = "asked" | "approved" | "used" | "denied" | "expired" | "cancelled";
export const isOpen = (state: ApprovalState): boolean => state === "asked" || state === "approved";

export type Verdict = "approved" | "denied";

export interface Decision {
  readonly verdict: Verdict;
  readonly by: string;
  readonly email: string | null;
  readonly reason: string;
  readonly atMs: number;
}

/** A request for approval as its instance has it: the call, whole but for its body, and what has become of it. */
export interface Approval {
  readonly id: string;
  readonly instance: string;
  readonly human: string;
  readonly agent: string;
  readonly agentVersion: string;
  readonly task: string;
  readonly purpose: string;
  readonly upstream: string;
  readonly method: string;
  /** At the upstream. */
  readonly url: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** As its record has it. The bytes lie beside the record. */
  readonly body: Json;
  /** Of its record in the instance's transcript. */
  readonly seq: number;
  /** The entries that hold it back. */
  readonly entries: readonly string[];
  readonly groups: readonly (readonly string[])[];
  readonly notDelegator: boolean;
  readonly askedAtMs: number;
  /** Until then it can be decided. */
  readonly expiresAtMs: number;
  readonly state: ApprovalState;
  readonly decision: Decision | null;
  /** Until then an approval can be used. */
  readonly validUntilMs: number | null;
  /** When it came to its end, and why where nobody decided that. */
  readonly endedAtMs: number | null;
  readonly cause: string | null;
  /** The `seq` of the call that has used it. */
  readonly call: number | null;
}

/** In a list. An agent's headers are as long as it likes: a page of them would be more than an RPC carries. */
export type ApprovalSummary = Omit<Approval, "seq" | "headers" | "body">;

/** Who decides, at the admin's door, and what. */
export interface DecideRequest {
  readonly verdict: Verdict;
  readonly by: string;
  readonly email: string | null;
  readonly emailDigest: string | null;
  readonly groups: readonly string[];
  readonly reason: string;
}

export type DecideAnswer =
  /** `isRepeated`: the same one had decided the same before. */
  | { readonly kind: "decided"; readonly isRepeated: boolean; readonly approval: Approval }
  | { readonly kind: "forbidden"; readonly reason: string }
  /** Somebody decided, its time was over, or it was cancelled. */
  | { readonly kind: "over"; readonly approval: Approval }
  | { readonly kind: "unknown" }
  | { readonly kind: "unavailable" };

export interface ApprovalDeskCalls {
  /** What an instance asks for, and what became of it: told until this returns true. */
  report(approval: Approval): Promise<true>;
  decide(id: string, request: DecideRequest): Promise<DecideAnswer>;
  /** Newest first; those before this one. */
  list(which: "open" | "all", before: string | null, limit: number): Promise<readonly ApprovalSummary[]>;
  read(id: string): Promise<Approval | null>;
}

/** What a call that waits for a person holds of its instance. Belongs to the RPC session of `admit`. */
export interface TicketCalls {
  /** False: nobody decided in time, and the call is answered as pending. */
  decided(): Promise<boolean>;
}
