import { describe, expect, it } from "vitest";
import { shorten, sightingOf } from "../../src/gate/place.ts";

const CF = { asn: 64_500, country: "FR", httpProtocol: "HTTP/2", tlsVersion: "TLSv1.3", tlsClientCiphersSha1: "c=" };
const placeOf = (cf: object | undefined, headers: Record<string, string> = {}) =>
  sightingOf({ cf: cf as never, headers: new Headers(headers) }, 5)?.place ?? null;

describe("a place", () => {
  it("is what the edge says, its address shortened, its software digested", () => {
    const headers = { "cf-connecting-ip": "198.51.100.77", "user-agent": "octokit" };
    expect(sightingOf({ cf: CF as never, headers: new Headers(headers) }, 5)).toEqual({
      arrivedAtMs: 5,
      place: {
        network: 64_500,
        country: "FR",
        address: "198.51.100.0/24",
        family: 4,
        tls: expect.stringMatching(/^[0-9a-f]{16}$/),
        protocol: "HTTP/2",
        agent: expect.stringMatching(/^[0-9a-f]{16}$/),
      },
    });
  });

  it("is unknown where the edge says nothing: then its header is the client's own word", () => {
    const headers = { "cf-connecting-ip": "198.51.100.77" };
    for (const cf of [undefined, {}, { country: "FR" }, { asn: "64500" }, { asn: Number.NaN }])
      expect(placeOf(cf, headers)).toBeNull();
  });

  it("is the same over a resumed session, and another for another TLS library", () => {
    const [full, resumed, other] = [
      { ...CF, tlsClientHelloLength: "508", tlsClientExtensionsSha1: "a=" },
      { ...CF, tlsClientHelloLength: "770", tlsClientExtensionsSha1: "b=" },
      { ...CF, tlsClientCiphersSha1: "d=" },
    ].map((cf) => placeOf(cf)?.tls);
    expect(resumed).toBe(full);
    expect(other).not.toBe(full);
    expect(placeOf({ asn: 1 })).toMatchObject({
      tls: null,
      country: null,
      address: null,
      family: null,
      protocol: null,
    });
  });
});

describe("an address", () => {
  it.each<[address: string, prefix: string | undefined]>([
    ["198.51.100.7", "198.51.100.0/24"],
    ["::ffff:198.51.100.7", "198.51.100.0/24"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"],
    ["2001:DB8:0001::6", "2001:db8:1::/48"],
    ["2001:db8::1", "2001:db8:0::/48"],
    ["::1", "0:0:0::/48"],
    ["::", "0:0:0::/48"],
    ["", undefined],
    ["198.51.100", undefined],
    ["198.51.100.256", undefined],
    ["2001:db8:1:2:3:4:5", undefined],
    ["2001:db8:1:2:3:4:5:6:7", undefined],
    ["2001::db8::1", undefined],
    ["1:2:3:4:5:6:7:8::", undefined],
    ["12345::1", undefined],
    ["198.51.100.7, 203.0.113.9", undefined],
    ["x".repeat(5_000), undefined],
  ])("%s is shortened to %s", (address, prefix) => expect(shorten(address)?.prefix).toBe(prefix));
});
