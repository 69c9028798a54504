import { groupsLeft } from "../src/control/narrowing.ts";
import type { Switch } from "../src/control/switch.ts";
import { absent, type Denial } from "../src/denial.ts";
import type { Deployment } from "../src/deployment.ts";
import { type Ceiling, type CeilingPermit, ceilingsOf, findExcess, permitsOf } from "../src/instance/ceilings.ts";
import type { Enrolment } from "../src/instance/contract.ts";
import { err, type Result } from "../src/result.ts";
import type { Call } from "../src/scope/call.ts";
import { readEntries } from "../src/scope/entry.ts";
import type { Lease } from "./lease.ts";

/**
 * What an instance may do as of now: as the configuration has it, by the groups that the human still has. Made once,
 * and anew when something was lost, so that a call pays nothing for it.
 */
export class LiveCeilings {
  readonly #deployment: () => Deployment;
  readonly #closed: () => readonly Switch[];
  #made: readonly Ceiling[] | null = null;

  /** @param closed what the instance was told of; those that narrow count here. */
  constructor(deployment: () => Deployment, closed: () => readonly Switch[]) {
    this.#deployment = deployment;
    this.#closed = closed;
  }

  /** Of the enrolment's groups, those that were not lost since. */
  groupsOf(enrolment: Enrolment): readonly string[] {
    return groupsLeft(enrolment, this.#closed());
  }

  /** By what each ceiling allows the call, or the first that does not. */
  permitsOf(enrolment: Enrolment, call: Call): Result<readonly CeilingPermit[], Denial> {
    this.#made ??= this.#make(enrolment, this.groupsOf(enrolment));
    const permits = permitsOf(this.#made, call);
    if (permits.ok || permits.error.kind !== "absent" || permits.error.layer !== "entitlement") return permits;
    if (this.groupsOf(enrolment).length === enrolment.groups.length) return permits;
    // Whoever reads the record wants to know whether it was so from the beginning.
    const before = permitsOf(this.#make(enrolment, enrolment.groups), call);
    return before.ok ? err(absent("entitlement", "not within the ceiling since the human lost a group")) : permits;
  }

  /** Something was lost: which of the running calls nothing allows any more. */
  narrow(enrolment: Enrolment | null, running: Iterable<Lease>): readonly Lease[] {
    this.#made = null;
    if (enrolment === null) return [];
    return [...running].filter(({ call }) => !this.permitsOf(enrolment, call).ok);
  }

  /** Whether a newcomer's scope is within what these switches leave. Null: it is. Else the groups that are left. */
  exceeding(enrolment: Enrolment, closed: readonly Switch[]): readonly string[] | null {
    const groups = groupsLeft(enrolment, closed);
    const scope = readEntries(enrolment.scope, "");
    const isWithin = scope.ok && findExcess(scope.value, this.#make(enrolment, groups)) === null;
    return isWithin ? null : groups;
  }

  #make(enrolment: Enrolment, groups: readonly string[]): readonly Ceiling[] {
    const agentsAbove = enrolment.chain.slice(0, -1).map(({ agent }) => agent);
    return ceilingsOf(this.#deployment().config, { ...enrolment, groups, agentsAbove });
  }
}
