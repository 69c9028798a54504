import type { Deployment } from "../src/deployment.ts";
import { bodiesPrefix, type Extent, isMeant, judge, NOBODY, parseBodiesKey, UNHEARD } from "../src/retention/cover.ts";
import { readErasureLine, writeErasureLine } from "../src/transcript/erasure.ts";
import type { Doomed, Erasure, ErasureBook, Page, Running } from "./erasure-book.ts";
import { ErasureGuard, HeldError } from "./erasure-guard.ts";
import { type Asked, ErasureReach } from "./erasure-reach.ts";
import { countLines, deleteObjects, keepOthers, type Listed, listAfter, putCertificate } from "./erasure-store.ts";
import type { HoldBook } from "./hold-book.ts";

/** What the bucket lists, and deletes, at once. */
const PAGE_KEYS = 1_000;
/** Volumes that are read for one page: 40 MB at most, one after the other. */
const LOOKS_PER_PAGE = 50;
/** Deletions of one step: where the bucket refuses, keys are tried one by one. */
const DELETIONS_PER_STEP = 100;
/** Instances that one step asks. */
const ASKED_PER_STEP = 200;

/** `on`: there is more to do at once. `wait`: in a moment. `over`: all that can go is gone. */
export type Step = "on" | "wait" | "over";

interface Options {
  readonly book: ErasureBook;
  readonly holds: HoldBook;
  readonly bucket: () => R2Bucket;
  readonly deployment: () => Deployment;
}

/**
 * Carries erasures on, step by step. Each step begins from what stands in the book, does what can be done twice, and
 * books it.
 */
export class ErasureRun {
  readonly #book: ErasureBook;
  readonly #guard: ErasureGuard;
  readonly #reach: ErasureReach;
  readonly #options: Options;
  #chunk = PAGE_KEYS;

  constructor(options: Options) {
    this.#options = options;
    this.#book = options.book;
    this.#guard = new ErasureGuard(options.book, options.holds);
    this.#reach = new ErasureReach(options.book, this.#guard, options.deployment);
  }

  /** Settles when no deletion is on its way that was begun before. Never rejects. */
  get deleting(): Promise<unknown> {
    return this.#guard.deleting;
  }

  /** Throws `HeldError`, and whatever is out of reach. */
  async step(running: Running): Promise<Step> {
    this.#guard.lookAtHolds(running.erasure);
    switch (running.stage) {
      case "certificate":
        return this.#certify(running.erasure);
      case "instances":
        if (running.cursor === "unheard") return (await this.#reach.askAgain(running.erasure)) ? "wait" : "on";
        await this.#reach.askMembers(running);
        return "on";
      case "objects":
      case "objects-again":
      case "late":
        return running.page === null ? this.#decidePage(running) : this.#deletePage(running, running.page);
      case "over":
        return "over";
    }
  }

  // --- the certificate --------------------------------------------------------------------------------------------

  async #certify(erasure: Erasure): Promise<Step> {
    const { config, sealKeys } = this.#options.deployment();
    const { id, human, by, reason, atMs, beforeMs, task } = erasure;
    const payload = { iss: config.origin, id, human, by, reason, at: atMs, before: beforeMs };
    const line = writeErasureLine(sealKeys, task === null ? payload : { ...payload, task });
    // By another key, and by ES256 each time, the same statement has another signature.
    await putCertificate(this.#options.bucket(), erasure.certificate, line, (text) => {
      const there = readErasureLine(text.trimEnd(), sealKeys);
      return (
        there.ok && there.value.id === id && there.value.before === beforeMs && there.value.task === (task ?? undefined)
      );
    });
    // Dying here, it is found as it is.
    this.#book.goTo(id, "instances", "0.");
    return "on";
  }

  // --- the bucket -------------------------------------------------------------------------------------------------

  /** What of the next keys goes: decided, and in the book, before any of it does, so that it is counted once. */
  async #decidePage({ erasure, cursor, stage }: Running): Promise<Step> {
    const bucket = this.#options.bucket();
    const objects = await listAfter(bucket, bodiesPrefix(erasure), cursor, PAGE_KEYS);
    const unasked = this.#unasked(erasure, objects);
    if (unasked.length > 0) {
      await this.#reach.askAll(erasure, unasked.slice(0, ASKED_PER_STEP));
      return unasked.some(({ attempts }) => attempts > 0) ? "wait" : "on";
    }
    const doomed: Doomed[] = [];
    let looks = 0;
    let upTo = cursor;
    for (const object of objects) {
      if (looks >= LOOKS_PER_PAGE) break;
      const { verdict, extent } = this.#judge(erasure, object);
      upTo = object.key;
      if (verdict === "take") doomed.push({ key: object.key, bytes: object.bytes, isWhole: true });
      if (verdict === "later")
        this.#book.leave(erasure.id, object.key, "written since, or not the gate's: another erasure takes it");
      if (verdict !== "look") continue;
      looks++;
      const counted = await countLines(bucket, object.key, (seq) => isMeant(seq, extent)).catch((error: unknown) => {
        if (error instanceof Error && /did not answer/.test(error.message)) throw error;
        return "unreadable" as const;
      });
      if (counted === "unreadable") this.#book.leave(erasure.id, object.key, "it can't be read as a volume of bodies");
      else if (counted !== null && counted.meant > 0)
        doomed.push({ key: object.key, bytes: object.bytes, isWhole: counted.others === 0 });
    }
    if (objects.length > 0) {
      this.#book.setPage(erasure.id, { doomed, upTo });
      return "on";
    }
    // What the bucket refused may have been its mood: once more, from the beginning.
    if (stage === "objects" && this.#book.forgetLeftObjects(erasure.id) > 0) {
      this.#book.goTo(erasure.id, "objects-again", "");
      return "wait";
    }
    return "over";
  }

  /** Instances with objects on this page that have not said how far the erasure reaches: none of them is on the roster any more. */
  #unasked(erasure: Erasure, objects: readonly Listed[]): Asked[] {
    const unasked = new Map<string, string>();
    for (const { key } of objects) {
      const { instance, task } = parseBodiesKey(key) ?? {};
      if (instance === undefined || task === undefined || unasked.has(instance)) continue;
      if (this.#guard.isLeftHeld(erasure, task)) continue;
      if ((this.#book.extent(erasure.id, instance) ?? null) === null) unasked.set(instance, task);
    }
    return [...unasked].map(([instance, task]) => ({
      instance,
      task,
      attempts: this.#book.attempts(erasure.id, instance),
    }));
  }

  #judge(erasure: Erasure, { key, uploadedMs }: Listed): { verdict: ReturnType<typeof judge>; extent: Extent } {
    const object = parseBodiesKey(key);
    if (object === undefined) return { verdict: uploadedMs <= erasure.beforeMs ? "take" : "later", extent: NOBODY };
    const extent = this.#book.extent(erasure.id, object.instance) ?? UNHEARD;
    if (this.#guard.isLeftHeld(erasure, object.task)) return { verdict: "keep", extent };
    return { verdict: judge(object, extent, uploadedMs, erasure.beforeMs), extent };
  }

  async #deletePage(running: Running, page: Page): Promise<Step> {
    const { erasure } = running;
    let at = running.pageAt;
    for (let deletions = 0; at < page.doomed.length && deletions < DELETIONS_PER_STEP; deletions++) {
      this.#guard.lookAtHolds(erasure);
      const next = this.#nextChunk(erasure, page, at);
      const through = next.through;
      if (next.doomed.length === 0) {
        this.#book.passed(erasure.id, through, []);
        at += through;
        continue;
      }
      const outcome = await this.#guard.track(this.#take(erasure, next.doomed));
      if (outcome !== "gone" && next.doomed.length > 1) {
        // Which of them it is, is found by halves. What is gone already is no harm to delete again.
        this.#chunk = Math.ceil(next.doomed.length / 2);
        continue;
      }
      if (typeof outcome === "object")
        this.#book.leave(erasure.id, next.doomed[0]!.key, `the bucket refused: ${outcome.refused}`);
      // Dying before this, they are deleted once more, and counted once.
      this.#book.passed(erasure.id, through, outcome === "gone" ? next.doomed : []);
      at += through;
      this.#chunk = outcome === "gone" ? Math.min(PAGE_KEYS, this.#chunk * 2) : 1;
    }
    if (at >= page.doomed.length) this.#book.finishPage(erasure.id, page);
    return "on";
  }

  /** Keys that go together; one that is written anew goes alone. What a hold of its task keeps is passed over. */
  #nextChunk(
    erasure: Erasure,
    page: Page,
    at: number,
  ): { readonly doomed: readonly Doomed[]; readonly through: number } {
    const doomed: Doomed[] = [];
    let through = 0;
    for (const one of page.doomed.slice(at, at + this.#chunk)) {
      if (!one.isWhole && doomed.length > 0) break;
      through++;
      const task = parseBodiesKey(one.key)?.task;
      if (task !== undefined && this.#guard.isLeftHeld(erasure, task)) continue;
      doomed.push(one);
      if (!one.isWhole) break;
    }
    return { doomed, through };
  }

  /** `kept`: a hold of its task came while it was read, and that is said. */
  async #take(erasure: Erasure, doomed: readonly Doomed[]): Promise<"gone" | "kept" | { refused: string }> {
    const bucket = this.#options.bucket();
    const [first] = doomed;
    if (first === undefined || first.isWhole)
      return deleteObjects(
        bucket,
        doomed.map(({ key }) => key),
      );
    const { instance = "", task = "" } = parseBodiesKey(first.key) ?? {};
    const mayGo = (): boolean => {
      this.#guard.lookAtHolds(erasure);
      return !this.#guard.isLeftHeld(erasure, task);
    };
    const extent = this.#book.extent(erasure.id, instance) ?? UNHEARD;
    try {
      const isGone = await keepOthers(bucket, first.key, (seq) => isMeant(seq, extent), mayGo);
      return isGone ? "gone" : "kept";
    } catch (error) {
      if (error instanceof HeldError) throw error;
      return { refused: error instanceof Error ? error.message.slice(0, 200) : "unknown" };
    }
  }
}
