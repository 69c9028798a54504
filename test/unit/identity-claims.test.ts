// What a provider's claims say of a human, and as of when: by whichever kind of token, and whatever its clock is.

import { describe, expect, it } from "vitest";
import type { IdentityProviderConfig } from "../../src/config/define.ts";
import { groupsLeft } from "../../src/control/narrowing.ts";
import { isInReach } from "../../src/control/switch.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { humanOfClaims } from "../../src/identity/id-token.ts";
import config from "../workerd/config.ts";

const NOW = 1_900_000_000;
const provider = Object.values(config.identityProviders)[0] as IdentityProviderConfig;
const humanOf = (claims: Record<string, unknown> = {}, iat = NOW) => {
  const human = humanOfClaims({ sub: "ada", email: "ada@acme.example", ...claims } as never, provider, {
    iat,
    exp: iat + 300,
    now: NOW,
  });
  if (!human.ok) throw new Error(human.error);
  return human.value;
};

describe("an address", () => {
  it.each([[undefined], [true], ["true"]])("counts with email_verified %j", (email_verified) => {
    expect(humanOf({ email_verified }).isEmailUnverified).toBe(false);
  });
  it.each([
    [false],
    ["false"],
    ["False"],
    [null],
    [0],
    [1],
    [""],
    ["yes"],
    [{}],
    [[]],
    [["true"]],
  ])("does not, with email_verified %j", (email_verified) =>
    expect(humanOf({ email_verified }).isEmailUnverified).toBe(true));
  it("is the same in capitals, and another with a letter that only looks like one of its own", () => {
    expect(emailDigest(" ADA@Acme.Example ")).toBe(emailDigest("ada@acme.example"));
    expect(emailDigest("KIM@acme.example")).toBe(emailDigest("kim@acme.example"));
    // The Kelvin sign, whose small letter is an ordinary k.
    expect(emailDigest("\u212aim@acme.example")).not.toBe(emailDigest("kim@acme.example"));
  });
});

describe("groups by a provider whose clock runs ahead", () => {
  const human = humanOf({ groups: ["engineering"] }, NOW + 50);
  const lost = { act: "narrow", reach: "human", target: { human: human.id }, groups: [], eventAtMs: NOW * 1_000 + 1 };

  it("are those of now at the latest", () => {
    expect([human.groupsAtMs, human.issuedAtMs]).toEqual([NOW * 1_000, (NOW + 50) * 1_000]);
    expect(humanOf({}, NOW - 50).groupsAtMs).toBe((NOW - 50) * 1_000);
  });
  it("are lost to a narrowing of a moment later, by the gate's clock", () => {
    expect(groupsLeft({ groups: human.groups, groupsAtMs: human.groupsAtMs }, [lost as never])).toEqual([]);
    expect(isInReach(lost as never, { human: human.id, groupsAtMs: human.groupsAtMs } as never)).toBe(true);
  });
});
