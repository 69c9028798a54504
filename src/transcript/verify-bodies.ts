import { type Absence, type AbsenceRules, accountFor } from "./verify-absence.ts";
import { GatheredBody } from "./verify-body.ts";
import { type Findings, lineOf } from "./verify-findings.ts";
import type { Partition, VolumeName } from "./verify-layout.ts";
import { readLines } from "./verify-lines.ts";
import type { TranscriptObjects } from "./verify-objects.ts";
import { type RawObjects, readRawObjects } from "./verify-raw.ts";
import type { RecordReader } from "./verify-records.ts";
import { parseRun, type Run } from "./verify-run.ts";
import { type BodyName, bodyId, type StatedBody } from "./verify-stated-bodies.ts";

export interface ErasedBody extends BodyName {
  /** Id of the certificate. */
  readonly erasure: string;
}

/** Bodies of which something is not here, or is here and can't be verified. */
export interface BodyCounts {
  /** Gone, or some objects of it, by a certificate. Lawful. */
  readonly erased: readonly ErasedBody[];
  /** Gone, or some objects of it, and old enough for the bucket's lifecycle. Lawful. */
  readonly expired: readonly BodyName[];
  /** Gone as a whole, and nothing accounts for it: a finding each. */
  readonly absent: readonly BodyName[];
  /** Here as a whole or in part, but no record states a digest yet, or ever (its object was reset while it came). */
  readonly undigested: readonly BodyName[];
  /** Raw objects of calls that still run, whose line is not here yet. */
  readonly rawAhead: number;
}

/** What the segments said of the transcript as a whole. */
export interface TranscriptState {
  readonly isEnded: boolean;
  /** Of the record that comes next; null where it can't be known. */
  readonly nextSeq: number | null;
}

/**
 * Holds what lies under `bodies/` to what the records state. Objects come in the order of their segments and volumes,
 * one at a time; everything is hashed as it comes, and nothing of a body is kept.
 */
export class BodyReader {
  readonly #objects: TranscriptObjects;
  readonly #partition: Partition;
  readonly #records: RecordReader;
  readonly #raw: RawObjects;
  readonly #absence: AbsenceRules;
  readonly #findings: Findings;
  readonly #gathered = new Map<string, GatheredBody>();
  /** A line or an object could not be read: what seems to be missing may have stood there. */
  #isDamaged = false;

  constructor(
    objects: TranscriptObjects,
    partition: Partition,
    records: RecordReader,
    raw: RawObjects,
    absence: AbsenceRules,
    findings: Findings,
  ) {
    this.#objects = objects;
    this.#partition = partition;
    this.#records = records;
    this.#raw = raw;
    this.#absence = absence;
    this.#findings = findings;
  }

  /** A volume of the bodies of one segment. */
  async read(name: VolumeName): Promise<void> {
    const { key } = name;
    const object = await this.#objects.open(key);
    const read = object.ok ? await readLines(object.value) : object;
    if (!read.ok) {
      this.#markDamaged(key, read.error);
      return;
    }
    const { lines, terminated } = read.value;
    if (!terminated) this.#findings.add(lineOf(key, lines.length - 1), "does not end with a newline");
    for (const [index, bytes] of lines.entries()) {
      const run = parseRun(bytes);
      if (run.ok) await this.#readRun(run.value, name, lineOf(key, index));
      else this.#markDamaged(lineOf(key, index), run.error);
    }
  }

  #markDamaged(place: string, problem: string): void {
    this.#isDamaged = true;
    this.#findings.add(place, problem);
  }

  async #readRun(run: Run, name: VolumeName, at: string): Promise<void> {
    const place = `${at} (seq ${run.seq}, ${run.part})`;
    let body = this.#gathered.get(bodyId(run));
    if (body === undefined) {
      const stated = this.#records.findBody(run);
      if (stated === undefined) {
        this.#findings.add(place, "a body that no record refers to");
        return;
      }
      body = new GatheredBody(stated, place);
      this.#gathered.set(bodyId(run), body);
    }
    if (body.mayFollowAGap(run, name) && this.#accountFor(body.stated) !== null) body.skipTo(run.index);
    const problem = body.problemOf(run, name.firstSeq);
    if (problem !== undefined) {
      if (!body.blamed && !this.#isDamaged) this.#findings.add(place, problem);
      body.blamed = true;
      if (run.bytes === null) this.#raw.take(run);
      return;
    }
    body.addRun(run, name.key);
    if (run.bytes === null) await this.#readRaw(body);
    // What a rule asks of a body is asked of one that came whole: a longer one no rule has read.
    else if (run.part === "request" && run.index === 0 && body.isWhole && this.#records.waitsForBody(run.seq))
      this.#records.readBody(run.seq, run.bytes);
  }

  async #readRaw(body: GatheredBody): Promise<void> {
    const names = this.#raw.take(body.stated);
    if (body.blamed || body.isPartlyGone) return;
    const problem = await readRawObjects(this.#objects, this.#partition.path, body, names);
    if (problem === null) return;
    if ("isMissing" in problem && this.#accountFor(body.stated) !== null) body.isPartlyGone = true;
    else {
      body.blamed = true;
      this.#findings.add(problem.place, problem.problem);
    }
  }

  #accountFor(stated: StatedBody): Absence | null {
    return accountFor(stated, this.#partition.ids, this.#absence);
  }

  /** After the last object. */
  finish(state: TranscriptState): BodyCounts {
    const counts = { erased: [], expired: [], absent: [], undigested: [] } as {
      readonly erased: ErasedBody[];
      readonly expired: BodyName[];
      readonly absent: BodyName[];
      readonly undigested: BodyName[];
    };
    for (const stated of this.#records.bodies) {
      const name = { seq: stated.seq, part: stated.part };
      const body = this.#gathered.get(bodyId(name));
      if (body?.blamed) continue;
      const found = this.#judge(stated, body, state);
      if (found === null) continue;
      if (typeof found === "object") counts.erased.push({ ...name, ...found });
      else counts[found].push(name);
    }
    return { ...counts, rawAhead: this.#readLeftRaw(state) };
  }

  #judge(
    stated: StatedBody,
    body: GatheredBody | undefined,
    { isEnded }: TranscriptState,
  ): Absence | "absent" | "undigested" | null {
    const absence = this.#accountFor(stated);
    if (body === undefined) {
      const hasRaw = this.#raw.has(stated);
      if (stated.bytes === null) return !isEnded && this.#records.isToCome(stated) ? null : "undigested";
      if (stated.bytes === 0) return hasRaw && stated.mayBeMore ? "undigested" : null;
      if (absence !== null) return absence;
      // Raw objects without their line are the finding.
      if (this.#isDamaged || (hasRaw && !stated.mayBeMore)) return null;
      this.#findings.add(stated.place, `its ${stated.part} body is absent, and nothing accounts for that`);
      return "absent";
    }
    if (stated.bytes === null) return "undigested";
    if (body.isPartlyGone || (!body.isWhole && absence !== null)) return absence;
    if (!body.isWhole) {
      const part = `a part of a body: ${body.bytes} of the ${stated.bytes} bytes of ${stated.place}`;
      if (!this.#isDamaged) this.#findings.add(body.firstPlace, part);
      return null;
    }
    if (body.problem !== undefined) this.#findings.add(body.problemPlace, body.problem);
    return body.hasSurplus ? "undigested" : null;
  }

  /** Raw objects that no line stands for. Gives how many are ahead of theirs. */
  #readLeftRaw({ isEnded, nextSeq }: TranscriptState): number {
    let ahead = 0;
    for (const names of this.#raw.left) {
      const [first] = names as readonly [(typeof names)[number]];
      const stated = this.#records.findBody(first);
      const isOfNext = nextSeq !== null && first.seq >= nextSeq;
      if (!isEnded && (isOfNext || this.#records.isToCome(first))) ahead += names.length;
      else if (stated === undefined || !(stated.mayBeMore || this.#accountFor(stated) !== null || this.#isDamaged))
        for (const { key } of names) this.#findings.add(key, "a raw object that no line refers to");
    }
    return ahead;
  }
}
