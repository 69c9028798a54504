import * as z from "zod";

/** In which order states of one request for approval follow each other. `used` is said by the call that uses it. */
const MAY_FOLLOW: Readonly<Record<string, readonly (string | null)[]>> = {
  asked: [null],
  approved: ["asked"],
  denied: ["asked"],
  expired: ["asked", "approved"],
  cancelled: ["asked", "approved"],
  used: ["approved"],
};

const body = z
  .looseObject({ bytes: z.unknown().optional(), mediaType: z.unknown().optional(), coding: z.unknown().optional() })
  .nullish();
/** The one call, as far as records state it: digests of bodies are salted each on its own. */
const asked = {
  upstream: z.unknown().optional(),
  method: z.unknown().optional(),
  target: z.unknown().optional(),
  body,
};
const approvalShape = z.looseObject({
  approval: z.string(),
  state: z.enum(["asked", "approved", "denied", "expired", "cancelled"]),
  at: z.number().optional(),
  human: z.string().optional(),
  by: z.string().optional(),
  expires: z.number().optional(),
  validUntil: z.number().optional(),
  notDelegator: z.boolean().optional(),
  ...asked,
});
const userShape = z.looseObject({
  approval: z.string().optional(),
  approver: z.string().optional(),
  at: z.number().optional(),
  ...asked,
});

type Said = z.infer<typeof approvalShape>;
type Use = z.infer<typeof userShape>;

interface Known {
  readonly state: string;
  readonly asked: Said | null;
  readonly approved: Said | null;
}

const UNKNOWN: Known = { state: "", asked: null, approved: null };

/** Holds each approval to what was asked and decided before, and to its one use. */
export class ApprovalReader {
  readonly #known = new Map<string, Known>();

  /** What is wrong with a record of a request; null: nothing. */
  read(envelope: object): string | null {
    const record = approvalShape.safeParse(envelope);
    if (!record.success) return "not a record of type approval";
    const said = record.data;
    const { approval: id, state } = said;
    const before = this.#known.get(id) ?? UNKNOWN;
    const problem = this.#follow(id, state);
    const kept = state === "asked" ? { asked: said } : state === "approved" ? { approved: said } : {};
    this.#known.set(id, { ...before, state, ...kept });
    if (problem !== null || (state !== "approved" && state !== "denied")) return problem;
    const { notDelegator, human, expires } = before.asked ?? {};
    if (notDelegator === true && said.by !== undefined && said.by === human)
      return `approval ${id} is ${state} by whom the agent acts for`;
    return isPast(said.at, expires) ? `approval ${id} is ${state} when its time was over` : null;
  }

  /** The same of a call: null as well where it needed no approval. */
  readCall(envelope: object): string | null {
    const user = userShape.safeParse(envelope);
    if (!user.success) return "names an approval that is none";
    const { approval: id } = user.data;
    if (id === undefined) return null;
    const before = this.#known.get(id) ?? UNKNOWN;
    const problem = this.#follow(id, "used");
    this.#known.set(id, { ...before, state: "used" });
    return problem ?? findMisuse(id, before, user.data);
  }

  /** Ids of those that nobody has decided, or used, and that have not come to an end otherwise. */
  get open(): readonly string[] {
    return [...this.#known].flatMap(([id, { state }]) => (state === "asked" || state === "approved" ? [id] : []));
  }

  #follow(id: string, state: string): string | null {
    const before = this.#known.get(id)?.state ?? null;
    if (MAY_FOLLOW[state]?.includes(before)) return null;
    return `approval ${id} is ${state}, and was ${before ?? "never asked for"} before`;
  }
}

/** One call, by whose word it says, in its time. */
function findMisuse(id: string, { asked, approved }: Known, use: Use): string | null {
  const other = (["upstream", "method", "target"] as const).find((name) => use[name] !== asked?.[name]);
  const others = (["bytes", "mediaType", "coding"] as const).find((name) => use.body?.[name] !== asked?.body?.[name]);
  if (other !== undefined) return `approval ${id} was given to another call: its ${other}`;
  if (others !== undefined) return `approval ${id} was given to another call: its body's ${others}`;
  if (use.approver !== approved?.by) return `approval ${id} was given by somebody else than it says`;
  return isPast(use.at, approved?.validUntil) ? `approval ${id} is used when its time was over` : null;
}

const isPast = (atMs: number | undefined, untilMs: number | undefined): boolean =>
  atMs !== undefined && untilMs !== undefined && atMs >= untilMs;
