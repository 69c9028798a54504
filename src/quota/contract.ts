import type { Dimension, Some } from "./dimensions.ts";

/** What a call needs of one quota, by the name of its object. */
export interface Wanted {
  readonly name: string;
  readonly need: Some;
}

/** What a running call took of one quota: of bytes, those that may pass before they are counted. */
export interface Ticket extends Wanted {
  readonly period: number;
}

/** What an instance and a `Quota` say to each other. Amounts are sums since the instance began, or the period did. */

export interface ShareReport {
  /** Which the sums are of; what does not last is nothing in any other. */
  readonly period: number;
  /** As on record: what crashed is charged as it was reserved. */
  readonly used: Some;
  /** Calls that still run, or may, or are not counted to their end: their use will change. */
  readonly running: number;
}

export interface LeaseRequest extends ShareReport {
  readonly instance: string;
  /** Of its task. From an hour after it on, nothing that it says counts any more. */
  readonly deadlineMs: number;
  /**
   * The version of the answer that it goes on from; null: none is known, and nothing is reported. What goes on from any but
   * the newest changes nothing: it was on its way while something else was said.
   */
  readonly basis: number | null;
  /** The least of what waits: less than this is no use. */
  readonly least: Some;
  readonly need: Some;
  /** Ahead of need. */
  readonly ahead: Some;
}

export interface LeaseAnswer {
  readonly version: number;
  readonly period: number;
  /** In all: what is not used of it may be, within `validMs` of the question. */
  readonly granted: Some;
  readonly validMs: number;
  /** Of what there is not enough; null: all that was needed is granted. */
  readonly short: Short | null;
}

export interface Short {
  readonly dimension: Dimension;
  /** Null: it does not come back. */
  readonly retryAfterSeconds: number | null;
}

export interface QuotaReading {
  readonly quota: string;
  readonly key: string;
  readonly period: { readonly fromMs: number; readonly untilMs: number } | null;
  readonly dimensions: readonly {
    readonly dimension: string;
    readonly limit: number;
    /** As far as instances have said so. */
    readonly spent: number;
    /** Given out, and not said to be spent. */
    readonly leased: number;
  }[];
  /** Instances that have leased of it, in this period, and whose tasks may not be over. */
  readonly instances: number;
}

/** The methods of `Quota`. Null: the configuration has no such quota. */
export interface QuotaCalls {
  /** Null as well: its task is over for long. */
  lease(request: LeaseRequest): Promise<LeaseAnswer | null>;
  read(): Promise<QuotaReading | null>;
}
