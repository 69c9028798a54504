import type { JsonObject } from "../grant/compact.ts";
import { MILLION, millionths, own, Sums } from "./verify-amounts.ts";
import type { ChildrenReader } from "./verify-children.ts";
import type { Finding } from "./verify-findings.ts";
import type { ReadRecord } from "./verify-segment.ts";
import type { Delegation, EndedSaid, Enrolled, Return } from "./verify-shapes.ts";

/** A parent's segments may come into the bucket so much later than its child's. */
const PARENT_LATE_MS = 600_000;

interface Told<T> {
  readonly place: string;
  readonly said: T;
}

/** Of one transcript, what its parent and its children are held to. */
export interface Member {
  readonly partition: string;
  readonly instance: string;
  readonly enrolled: Told<Enrolled> & { readonly envelope: JsonObject; readonly atMs: number };
  readonly delegated: readonly Told<Delegation>[];
  readonly returned: readonly Told<Return>[];
  readonly ended: Told<EndedSaid> | null;
  readonly children: ChildrenReader;
  readonly latestMs: number;
  /** Something of it could not be read: what it does not say may stand there. */
  readonly hasHoles: boolean;
}

/** What the parent's records say of a child. `none`: it has no parent; `absent`: the parent's transcript is not here. */
export type ParentState = "none" | "held" | "absent";

/** What one transcript says that concerns others; filled while it is read. */
export class MemberReader {
  #enrolled: Member["enrolled"] | null = null;
  readonly #delegated: Told<Delegation>[] = [];
  readonly #returned: Told<Return>[] = [];
  #ended: Told<EndedSaid> | null = null;

  enrol({ place, envelope, at }: ReadRecord, said: Enrolled): void {
    this.#enrolled = { place, said, envelope, atMs: at };
  }
  delegate({ place }: ReadRecord, said: Delegation | Return): void {
    if (said.act === "delegate") this.#delegated.push({ place, said });
    else this.#returned.push({ place, said });
  }
  end({ place }: ReadRecord, said: EndedSaid): void {
    this.#ended = { place, said };
  }

  /** Null: who it is can't be known. */
  member(rest: Pick<Member, "partition" | "children" | "latestMs" | "hasHoles">): Member | null {
    if (this.#enrolled === null) return null;
    const instance = String(this.#enrolled.envelope["instance"]);
    const said = { delegated: this.#delegated, returned: this.#returned, ended: this.#ended };
    return { ...rest, ...said, instance, enrolled: this.#enrolled };
  }
}

/**
 * Holds what parents and children say to each other. A child works on its parent's task, so all of a family stand under one
 * human and task: when the last transcript of those is read, they are held together and forgotten.
 */
export class Families {
  #of = "";
  #members = new Map<string, Member>();
  readonly #findings = new Map<string, Finding[]>();
  readonly #parents = new Map<string, ParentState>();

  /** @param of the human and task, in the order of which transcripts come */
  add(of: string, member: Member): void {
    if (of !== this.#of) this.#hold();
    this.#of = of;
    this.#members.set(member.instance, member);
  }

  finish(): {
    readonly findings: ReadonlyMap<string, readonly Finding[]>;
    readonly parents: ReadonlyMap<string, ParentState>;
  } {
    this.#hold();
    return { findings: this.#findings, parents: this.#parents };
  }

  #hold(): void {
    for (const child of this.#members.values()) {
      const { parent: id } = child.enrolled.said;
      const parent = id === null ? undefined : this.#members.get(id);
      this.#parents.set(child.partition, id === null ? "none" : parent === undefined ? "absent" : "held");
      if (parent === undefined) continue;
      const problem = findOfBirth(parent, child);
      if (problem !== null) this.#find(child, child.enrolled.place, problem);
      for (const { place, said } of parent.returned)
        if (said.child === child.instance) {
          const spent = findOfReturn(said, child);
          if (spent !== null) this.#find(parent, place, spent);
        }
    }
    this.#members = new Map();
  }

  #find({ partition }: Member, place: string, problem: string): void {
    const found = this.#findings.get(partition) ?? [];
    this.#findings.set(partition, found);
    found.push({ place, problem });
  }
}

/** A child is enrolled as its parent delegated to it. */
function findOfBirth(parent: Member, { instance, enrolled }: Member): string | null {
  const { envelope, said: child } = enrolled;
  const grant = envelope["grant"];
  const one = parent.delegated.findLast(({ said }) => said.child === instance && said.childGrant === grant);
  if (one === undefined) {
    const mayCome = parent.hasHoles || (parent.ended === null && parent.latestMs < enrolled.atMs + PARENT_LATE_MS);
    return mayCome ? null : `its parent ${parent.instance} has not delegated to it`;
  }
  const { said, place } = one;
  const above = parent.enrolled.envelope;
  const pairs: readonly (readonly [name: string, mine: unknown, theirs: unknown])[] = [
    ["agent", envelope["agent"], said.childAgent],
    ["agentVersion", envelope["agentVersion"], said.childAgentVersion],
    ["purpose", child.purpose, said.purpose],
    ["deadline", child.deadline, said.deadline],
    ["scope", child.scope, said.scope],
    ["limits", child.limits, said.limits],
    ["client", envelope["client"], above["client"]],
    ["mandate", envelope["mandate"], above["mandate"]],
    ["chain", aboveOf(envelope["chain"]), above["chain"]],
  ];
  const other = pairs.find(([, mine, theirs]) => !isSame(mine, theirs));
  return other === undefined ? null : `its ${other[0]} is not what was delegated (${place})`;
}

/** No list is a finding of its own. */
const aboveOf = (chain: unknown): unknown => (Array.isArray(chain) ? chain.slice(0, -1) : null);

/** What came back is what the child has spent, and all below it. What its own children did not say by its end may be more. */
function findOfReturn({ child: id, spent }: Return, child: Member): string | null {
  if (child.ended === null || child.hasHoles) return null;
  const { said: ended } = child.ended;
  const { spent: below } = child.children;
  const out = [...child.children.out];
  for (const name of ["calls", "bytes"] as const) {
    const least = ended[name] + below[name];
    const most = out.reduce((sum, { limits }) => sum + limits[name], least);
    if (spent[name] < least || spent[name] > most)
      return `takes back ${id} with ${spent[name]} ${name} spent, and its transcript says ${least}`;
  }
  const units = new Sums();
  units.add(ended.units);
  for (const unit of new Set([...Object.keys(spent.units), ...Object.keys(ended.units), ...below.units.names])) {
    const least = units.of(unit) + below.units.of(unit);
    const said = millionths(own(spent.units, unit));
    if (said < least || (out.length === 0 && said > least))
      return `takes back ${id} with ${said / MILLION} ${unit} spent, and its transcript says ${least / MILLION}`;
  }
  return null;
}

/** As JSON says it, in whatever order. */
function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const names = Object.keys(a);
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && isSame((a as never)[name], (b as never)[name]))
  );
}
