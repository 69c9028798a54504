import { createHash } from "node:crypto";
import type { Place, Sighting } from "../control/second-copy.ts";

/**
 * From where a request came, by what Cloudflare's edge says of its connection. Null where it says nothing (no `cf`, or no
 * network in it): then `cf-connecting-ip` may be the client's own word, and is not looked at.
 */
export function sightingOf({ cf, headers }: Pick<Request, "cf" | "headers">, arrivedAtMs: number): Sighting | null {
  const place = placeOf(cf ?? {}, headers);
  return place === null ? null : { place, arrivedAtMs };
}

function placeOf(cf: Readonly<Record<string, unknown>>, headers: Headers): Place | null {
  const { asn, country, httpProtocol } = cf;
  if (typeof asn !== "number" || !Number.isSafeInteger(asn)) return null;
  const address = shorten(headers.get("cf-connecting-ip") ?? "");
  // Not the ClientHello's length or its extensions: they change where a session is resumed.
  const offered = textOf(cf["tlsClientCiphersSha1"]) ?? textOf(cf["tlsCipher"]);
  return {
    network: asn,
    country: textOf(country),
    address: address?.prefix ?? null,
    family: address?.family ?? null,
    tls: offered === null ? null : digestOf(`${textOf(cf["tlsVersion"])} ${offered}`),
    protocol: textOf(httpProtocol)?.slice(0, 16) ?? null,
    agent: digestOf(headers.get("user-agent") ?? ""),
  };
}

const textOf = (value: unknown): string | null =>
  typeof value === "string" && value !== "" ? value.slice(0, 128) : null;

const digestOf = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);

interface Prefix {
  readonly family: 4 | 6;
  readonly prefix: string;
}

/** The /24 or /48 that an address lies in: what a site or a household has, and no machine of it. */
export function shorten(address: string): Prefix | undefined {
  // An IPv4 address may come in the form of IPv6 (RFC 4291 §2.5.5.2).
  const [, a, b, c, d] = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(address) ?? [];
  if (d !== undefined)
    return [a, b, c, d].every((part) => Number(part) < 256)
      ? { family: 4, prefix: `${Number(a)}.${Number(b)}.${Number(c)}.0/24` }
      : undefined;
  if (!/^[0-9a-f:]{2,39}$/i.test(address)) return undefined;
  const halves = address.split("::");
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = 8 - head.length - tail.length;
  const isWhole = halves.length === 1 ? missing === 0 : halves.length === 2 && missing >= 1;
  if (!isWhole || ![...head, ...tail].every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  const groups = [...head, ...Array<string>(missing).fill("0"), ...tail];
  const shown = groups.slice(0, 3).map((group) => Number.parseInt(group, 16).toString(16));
  return { family: 6, prefix: `${shown.join(":")}::/48` };
}
