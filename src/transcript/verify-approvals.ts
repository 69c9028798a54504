import { z } from "zod";

/** In which order states of one request for approval follow each other. `used` is said by the call that uses it. */
const MAY_FOLLOW: Readonly<Record<string, readonly (string | null)[]>> = {
  asked: [null],
  approved: ["asked"],
  denied: ["asked"],
  expired: ["asked", "approved"],
  cancelled: ["asked", "approved"],
  used: ["approved"],
};

const approvalShape = z.looseObject({
  approval: z.string(),
  state: z.enum(["asked", "approved", "denied", "expired", "cancelled"]),
});
const userShape = z.looseObject({ approval: z.string().optional() });

/** Holds each approval to what was asked and decided before, and to its one use. */
export class ApprovalReader {
  readonly #states = new Map<string, string>();

  /** What is wrong with a record of a request; null: nothing. */
  read(envelope: object): string | null {
    const record = approvalShape.safeParse(envelope);
    return record.success ? this.#follow(record.data.approval, record.data.state) : "not a record of type approval";
  }

  /** The same of a call: null as well where it needed no approval. */
  readCall(envelope: object): string | null {
    const user = userShape.safeParse(envelope);
    if (!user.success) return "names an approval that is none";
    const id = user.data.approval;
    return id === undefined ? null : this.#follow(id, "used");
  }

  #follow(id: string, state: string): string | null {
    const before = this.#states.get(id) ?? null;
    this.#states.set(id, state);
    if (MAY_FOLLOW[state]?.includes(before)) return null;
    return `approval ${id} is ${state}, and was ${before ?? "never asked for"} before`;
  }
}
