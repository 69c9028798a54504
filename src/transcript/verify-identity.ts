import type { JsonObject } from "../grant/compact.ts";
import { sha256Hex } from "./envelope.ts";
import type { ReadRecord } from "./verify-segment.ts";
import type { Enrolled, RenewedSaid } from "./verify-shapes.ts";

/** What every record says of who acts. `human`, `task` and `instance` are held to the object's name besides. */
const FIELDS = ["agent", "agentVersion", "manifestDigest", "client", "mandate"] as const;

/** Who acts is the same in every record, and every grant was given out: the first with the enrolment, others by a renewal. */
export class IdentityReader {
  #first: ReadRecord | null = null;
  #chain = "";
  /** Until when each is valid; of the first no record says it. */
  readonly #grants = new Map<string, number>();

  read(record: ReadRecord): string | null {
    const { envelope } = record;
    if (typeof envelope["deployment"] !== "string") return "its deployment is missing";
    if (this.#first === null) {
      this.#first = record;
      this.#chain = JSON.stringify(envelope["chain"]);
      return null;
    }
    const { envelope: first } = this.#first;
    const other = FIELDS.find((field) => envelope[field] !== first[field]);
    if (other !== undefined) return `its ${other} is not that of ${this.#first.place}`;
    if (JSON.stringify(envelope["chain"]) !== this.#chain) return `its chain is not that of ${this.#first.place}`;
    return null;
  }

  readEnrolled({ envelope }: ReadRecord, { manifest, parent }: Enrolled): string | null {
    if (typeof envelope["grant"] === "string") this.#grants.set(envelope["grant"], Number.POSITIVE_INFINITY);
    if (envelope["manifestDigest"] !== sha256Hex(JSON.stringify(manifest)))
      return "manifestDigest is not of its manifest";
    const mandate = envelope["mandate"];
    if (mandate !== undefined && typeof mandate !== "string") return "its mandate is none";
    return findOfChain(envelope, parent);
  }

  readRenewed({ issued, expires }: RenewedSaid): string | null {
    if (this.#grants.has(issued)) return `renews by the grant ${issued}, which was given out before`;
    this.#grants.set(issued, expires);
    return null;
  }

  /** @param isUsed it did something with the grant, so that must still have been valid */
  readGrant({ envelope, at }: ReadRecord, isUsed: boolean): string | null {
    const grant = envelope["grant"];
    const expires = typeof grant === "string" ? this.#grants.get(grant) : undefined;
    if (expires === undefined) return "its grant was not given out before it";
    return isUsed && at >= expires ? "its grant had expired" : null;
  }
}

/** Who acted, in the order of delegation: the instance itself last, and before it the one that provisioned it. */
function findOfChain(envelope: JsonObject, parent: string | null): string | null {
  const chain = Array.isArray(envelope["chain"]) ? (envelope["chain"] as readonly (JsonObject | null)[]) : [];
  const last = chain.at(-1);
  const other = ["client", "agent", "agentVersion", "instance"].find((field) => last?.[field] !== envelope[field]);
  if (last === undefined || other !== undefined) return "its chain does not end with itself";
  if ((chain.at(-2)?.["instance"] ?? null) !== parent) return "its parent is not the one before it in its chain";
  return null;
}
