import type { Fields } from "../transcript/envelope.ts";

/**
 * One key in two places: what proofs and connections of one instance say of it. Pure. It errs towards silence: an
 * organisation whose addresses change by the connection is usual, and a copy that stands where the first one stood is
 * not told from it.
 */

/** From where a request came, as the edge saw it. Nothing here is the client's own word but `agent`. */
export interface Place {
  /** The number of the autonomous system. */
  readonly network: number;
  readonly country: string | null;
  /** A /24 of IPv4 or a /48 of IPv6, never more. */
  readonly address: string | null;
  readonly family: 4 | 6 | null;
  /** Of what the client's TLS library offers: stable over resumed sessions. */
  readonly tls: string | null;
  readonly protocol: string | null;
  /** Of the User-Agent. */
  readonly agent: string | null;
}

export interface Sighting {
  readonly place: Place;
  /** When its head arrived, on the Worker's clock. */
  readonly arrivedAtMs: number;
}

export interface Seen extends Sighting {
  /** `iat` of its proof: the clock of who holds the key. */
  readonly issuedAtMs: number;
  readonly isRenewal: boolean;
}

/** Who was elsewhere for longer has moved. */
export const RETURN_MS = 60_000;
export const WINDOW_MS = 600_000;
/** Within the window. A laptop between two networks comes back once or twice. */
export const RETURNS = 3;
/** Of one instance. Whose are more within a minute, and all apart, is in several places whatever comes back. */
export const SPOTS_MAX = 8;
/** Of each place, the newest offsets between proof and arrival. `iat` has whole seconds. */
export const OFFSETS = 5;
export const OFFSET_GAP_MS = 5_000;
export const OFFSET_SPREAD_MS = 3_000;
/** So long after a move a call from before it may still arrive. Proofs name times that are their maker's to choose. */
export const UNDER_WAY_MS = 10_000;
/** Calls of the first one after somebody elsewhere has renewed. */
export const CALLS_AFTER_RENEWAL = 2;

interface Offset {
  readonly atMs: number;
  readonly offsetMs: number;
}

interface Spot {
  readonly key: string;
  readonly place: Place;
  readonly lastAtMs: number;
  readonly offsets: readonly Offset[];
}

/** In memory alone, and of a bounded size. */
export interface CopyState {
  /** The newest first. */
  readonly spots: readonly Spot[];
  /** Where it is, and since which call. */
  readonly stay: { readonly place: Place; readonly lastAtMs: number; readonly since: Moment } | null;
  /** When it came back to a place from another. */
  readonly returns: readonly number[];
  /** One from elsewhere, and calls of the others since. */
  readonly renewal: {
    readonly place: Place;
    readonly atMs: number;
    readonly since: Moment;
    readonly calls: number;
  } | null;
}

/** Of one call, by both clocks. */
type Moment = Pick<Seen, "issuedAtMs" | "arrivedAtMs">;

/** No younger by its proof than the first one from elsewhere, and soon enough after it. */
const isUnderWay = (seen: Moment, since: Moment): boolean =>
  seen.issuedAtMs <= since.issuedAtMs && seen.arrivedAtMs < since.arrivedAtMs + UNDER_WAY_MS;

export const UNSEEN: CopyState = { spots: [], stay: null, returns: [], renewal: null };

export interface CopyHit {
  /** There and back again and again; two clocks; a renewal while the other goes on. */
  readonly seen: "alternating" | "clocks" | "renewal";
  readonly places: readonly [Place, Place];
  /** Returns; seconds between the clocks; calls after the renewal. */
  readonly value: number;
  readonly threshold: number;
}

export function observe(
  state: CopyState,
  seen: Seen,
  nowMs: number,
): { readonly state: CopyState; readonly hit: CopyHit | null } {
  const spot = spotOf(state, seen, nowMs);
  const others = state.spots.filter(({ key, lastAtMs }) => key !== spot.key && lastAtMs > nowMs - WINDOW_MS);
  const { spots, isForgotten } = keep([spot, ...others], nowMs);
  const moved = move(state, seen, isForgotten, nowMs);
  const renewal = renewalAfter(state, seen, nowMs);
  const hit =
    moved.hit ??
    (renewal !== null && renewal.calls >= CALLS_AFTER_RENEWAL ? renewalHit(renewal, seen) : clocksHit(spot, others));
  const { stay, returns } = moved;
  if (hit === null) return { state: { spots, stay, returns, renewal }, hit };
  // Whoever goes on after it was said is noticed anew.
  return { state: { spots: spots.map((one) => ({ ...one, offsets: [] })), stay, returns: [], renewal: null }, hit };
}

const keyOf = ({ network, country, address, tls }: Place): string => JSON.stringify([network, country, address, tls]);

function spotOf({ spots }: CopyState, { place, arrivedAtMs, issuedAtMs }: Seen, nowMs: number): Spot {
  const key = keyOf(place);
  const known = spots.find((spot) => spot.key === key)?.offsets ?? [];
  const fresh = known.filter(({ atMs }) => atMs > nowMs - WINDOW_MS);
  const offsets = [...fresh, { atMs: nowMs, offsetMs: arrivedAtMs - issuedAtMs }].slice(-OFFSETS);
  return { key, place, lastAtMs: nowMs, offsets };
}

/**
 * Two places that one process is not likely to call from by turns. Of one network the addresses may be a pool, and
 * IPv4 and IPv6 of one machine lie far apart.
 */
export function areApart(a: Place, b: Place): boolean {
  const isElsewhere = a.country !== b.country;
  if (a.family !== b.family) return a.network !== b.network && isElsewhere;
  if (a.network !== b.network || isElsewhere) return true;
  return a.address !== b.address && a.tls !== null && b.tls !== null && a.tls !== b.tls;
}

/** `isForgotten`: there was no room for one that may well come back. First to go is one that another stands for, the oldest of them. */
function keep(
  spots: readonly Spot[],
  nowMs: number,
): { readonly spots: readonly Spot[]; readonly isForgotten: boolean } {
  if (spots.length <= SPOTS_MAX) return { spots, isForgotten: false };
  const spare = spots.findLastIndex(({ place }, i) => spots.slice(0, i).some((newer) => !areApart(newer.place, place)));
  const gone = spare === -1 ? spots.length - 1 : spare;
  const isForgotten = spare === -1 && spots[gone]!.lastAtMs > nowMs - RETURN_MS;
  return { spots: spots.toSpliced(gone, 1), isForgotten };
}

/** @param isForgotten counts as a return: of who comes from ever new places none would be known again */
function move({ stay, spots, returns }: CopyState, seen: Seen, isForgotten: boolean, nowMs: number) {
  const { place, issuedAtMs, arrivedAtMs } = seen;
  const here = { place, lastAtMs: nowMs, since: { issuedAtMs, arrivedAtMs } };
  const recent = returns.filter((atMs) => atMs > nowMs - WINDOW_MS);
  if (stay === null) return { stay: here, returns: recent, hit: null };
  if (!areApart(stay.place, place)) return { stay: { ...stay, place, lastAtMs: nowMs }, returns: recent, hit: null };
  // When the instance moved to where it is now.
  if (isUnderWay(seen, stay.since)) return { stay, returns: recent, hit: null };
  const wasHere = spots.some((spot) => !areApart(spot.place, place) && spot.lastAtMs > nowMs - RETURN_MS);
  const counted = wasHere || isForgotten ? [...recent, nowMs] : recent;
  const hit: CopyHit | null =
    counted.length < RETURNS
      ? null
      : { seen: "alternating", places: [stay.place, place], value: counted.length, threshold: RETURNS };
  return { stay: here, returns: counted, hit };
}

function renewalAfter({ stay, renewal }: CopyState, seen: Seen, nowMs: number): CopyState["renewal"] {
  const { place, issuedAtMs, arrivedAtMs, isRenewal } = seen;
  if (isRenewal) {
    const isFromElsewhere =
      stay !== null &&
      areApart(stay.place, place) &&
      stay.lastAtMs > nowMs - RETURN_MS &&
      !isUnderWay(seen, stay.since);
    return isFromElsewhere ? { place, atMs: nowMs, since: { issuedAtMs, arrivedAtMs }, calls: 0 } : null;
  }
  // It has moved to where it renewed, or too long ago.
  if (renewal === null || renewal.atMs <= nowMs - RETURN_MS || !areApart(renewal.place, place)) return null;
  return isUnderWay(seen, renewal.since) ? renewal : { ...renewal, calls: renewal.calls + 1 };
}

const renewalHit = ({ place, calls }: NonNullable<CopyState["renewal"]>, seen: Seen): CopyHit => ({
  seen: "renewal",
  places: [place, seen.place],
  value: calls,
  threshold: CALLS_AFTER_RENEWAL,
});

/** Two clocks, steady and apart, by turns. One machine has one clock, whatever its connections. */
function clocksHit(spot: Spot, others: readonly Spot[]): CopyHit | null {
  const mine = spanOf(spot);
  if (mine === null) return null;
  for (const other of others) {
    const theirs = spanOf(other);
    if (theirs === null || mine.fromMs >= theirs.untilMs || theirs.fromMs >= mine.untilMs) continue;
    const gapMs = Math.max(mine.minMs - theirs.maxMs, theirs.minMs - mine.maxMs);
    if (gapMs < OFFSET_GAP_MS) continue;
    const value = Math.floor(gapMs / 1_000);
    return { seen: "clocks", places: [other.place, spot.place], value, threshold: OFFSET_GAP_MS / 1_000 };
  }
  return null;
}

function spanOf({ offsets }: Spot) {
  if (offsets.length < OFFSETS) return null;
  const all = offsets.map(({ offsetMs }) => offsetMs);
  const [minMs, maxMs] = [Math.min(...all), Math.max(...all)];
  if (maxMs - minMs > OFFSET_SPREAD_MS) return null;
  return { minMs, maxMs, fromMs: offsets[0]!.atMs, untilMs: offsets.at(-1)!.atMs };
}

const PARTS = ["network", "country", "address", "tls", "protocol", "agent"] as const;

/** On record, whatever the rules say. `unrecorded`: hits since the last that is on record. */
export const copyFields = ({ seen, places, value, threshold }: CopyHit, unrecorded: number): Fields => ({
  rule: null,
  signal: "second-copy",
  value,
  threshold,
  windowSeconds: WINDOW_MS / 1_000,
  mode: "observe",
  act: null,
  reach: null,
  seen,
  differs: PARTS.filter((part) => places[0][part] !== places[1][part]),
  places: places.map((place) => Object.fromEntries(PARTS.map((part) => [part, place[part]]))),
  unrecorded,
});
