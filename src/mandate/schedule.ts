import * as z from "zod";

/** Pure: when in the week a mandate may be used, by the clock on a wall in some place. */

export const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;
export type Day = (typeof DAYS)[number];

const DAY_MINUTES = 1_440;
const clock = z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/, "a time of day, e.g. 08:30");

/** Names of the IANA database; `+01:00` and the like say nothing of summer. */
const isZone = (timeZone: string): boolean => {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{1,63}$/.test(timeZone)) return false;
  try {
    return formatter(timeZone) !== undefined;
  } catch {
    return false;
  }
};

/**
 * On these days from `from` on, until just before `to`. Where `to` is not later than `from` it is of the next day; a
 * window belongs to the day that it begins on. Both left out: all day.
 */
export const schedule = z
  .strictObject({
    timeZone: z.string().refine(isZone, "a time zone of the IANA database, e.g. Europe/Vienna"),
    days: z
      .array(z.enum(DAYS))
      .min(1)
      .max(DAYS.length)
      .refine((days) => new Set(days).size === days.length, "a day twice")
      .default([...DAYS]),
    from: clock.default("00:00"),
    to: z.union([clock, z.literal("24:00")]).default("24:00"),
  })
  .refine(({ from, to }) => from !== to, { path: ["to"], message: "the same as from: leave both out for all day" });
export type Schedule = z.output<typeof schedule>;

const formatters = new Map<string, Intl.DateTimeFormat>();
const FORMATTERS_MAX = 600;

/** Made once: it is dear. Throws where nobody knows the zone. */
function formatter(timeZone: string): Intl.DateTimeFormat {
  let known = formatters.get(timeZone);
  if (known === undefined) {
    const parts = {
      weekday: "short",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
    } as const;
    known = new Intl.DateTimeFormat("en-US", { timeZone, hourCycle: "h23", calendar: "iso8601", ...parts });
    if (formatters.size >= FORMATTERS_MAX) formatters.clear();
    formatters.set(timeZone, known);
  }
  return known;
}

interface WallClock {
  /** Index in `DAYS`. */
  readonly day: number;
  /** Since midnight, as a clock shows it. */
  readonly minute: number;
  /** E.g. 2026-03-29. */
  readonly date: string;
}

function wallClock(timeZone: string, nowMs: number): WallClock {
  const parts = new Map(
    formatter(timeZone)
      .formatToParts(nowMs)
      .map(({ type, value }) => [type, value]),
  );
  const number = (name: Intl.DateTimeFormatPartTypes): number => Number(parts.get(name));
  return {
    day: DAYS.indexOf(parts.get("weekday")?.toLowerCase() as Day),
    minute: number("hour") * 60 + number("minute"),
    date: `${parts.get("year")}-${parts.get("month")}-${parts.get("day")}`,
  };
}

const minuteOf = (text: string): number => Number(text.slice(0, 2)) * 60 + Number(text.slice(3));

/**
 * Whether a clock there shows a time within a window. So an hour that is left out in spring opens nothing, and one that
 * comes twice in autumn is open both times. A zone that can't be read opens nothing.
 */
export function isWithin({ timeZone, days, from, to }: Schedule, nowMs: number): boolean {
  let now: WallClock;
  try {
    now = wallClock(timeZone, nowMs);
  } catch {
    return false;
  }
  if (now.day < 0 || !Number.isInteger(now.minute) || now.minute < 0 || now.minute >= DAY_MINUTES) return false;
  const [begins, ends] = [minuteOf(from), minuteOf(to)];
  const isOn = (day: number): boolean => days.includes(DAYS[(day + DAYS.length) % DAYS.length]!);
  if (begins < ends) return isOn(now.day) && begins <= now.minute && now.minute < ends;
  return (isOn(now.day) && begins <= now.minute) || (isOn(now.day - 1) && now.minute < ends);
}

/** The day that uses are counted by: where the schedule is, else UTC's. */
export const dayOf = (of: Schedule | null, nowMs: number): string => wallClock(of?.timeZone ?? "UTC", nowMs).date;
