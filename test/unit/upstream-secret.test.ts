import { describe, expect, it } from "vitest";
import type { SecretUse } from "../../src/config/credential.ts";
import { readSecret, requireSecret } from "../../src/upstream/read-secret.ts";
import { Secret } from "../../src/upstream/secret.ts";

const VALUE = "s3cr3t-s3cr3t-s3cr3t";
const sent = (name: string): SecretUse => ({ name, form: "sent" });

describe("a secret", () => {
  const secret = new Secret(VALUE);

  it.each<[string, () => unknown]>([
    ["as text", () => `${secret}`],
    ["by String", () => String(secret)],
    ["joined", () => ["a", secret].join()],
    ["added", () => ["", secret].reduce((all, one) => (all as string) + (one as string))],
    ["as JSON", () => JSON.stringify({ secret })],
    ["spread", () => JSON.stringify({ ...secret })],
    ["by its members", () => JSON.stringify(Object.entries(secret))],
    ["in an error", () => new Error(`${secret}`).message],
    [
      "by inspect",
      () => (secret as unknown as Record<symbol, () => string>)[Symbol.for("nodejs.util.inspect.custom")]!(),
    ],
    ["by Object.prototype.toString", () => Object.prototype.toString.call(secret)],
  ])("does not show %s", (_how, show) => {
    expect(String(show())).not.toContain("s3cr3t");
  });

  it("is not in a structured clone", () => {
    let cloned: unknown = null;
    try {
      cloned = structuredClone(secret);
    } catch {}
    expect(JSON.stringify(cloned)).not.toContain("s3cr3t");
    expect(cloned).not.toBeInstanceOf(Secret);
  });

  it("opens", () => {
    expect(secret.open()).toBe(VALUE);
  });
});

describe("a secret that the configuration names", () => {
  const PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
  it.each<[what: string, value: unknown, form: SecretUse["form"], message: RegExp | null]>([
    ["is missing", undefined, "any", /^secret KEY is not set$/],
    ["is empty", "", "any", /^secret KEY is not set$/],
    ["is an object that gives nothing", {}, "any", /^secret KEY is not set$/],
    ["is one character too short to be scanned for", "0123456789abcde", "sent", /^secret KEY is shorter than 16/],
    ["is just long enough", "0123456789abcdef", "sent", null],
    ["is short, but never sent to an upstream", "short", "any", null],
    ["ends with a line break", `${VALUE}\n`, "sent", /^secret KEY is not one line/],
    ["holds what no header may", `${VALUE}\u00e9`, "sent", /^secret KEY is not one line/],
    ["is in a store", { get: async () => VALUE }, "sent", null],
    ["is a key", PEM, "pem", null],
    [
      "is GitHub's PKCS#1",
      PEM.replaceAll("PRIVATE", "RSA PRIVATE"),
      "pem",
      /^secret KEY is not a private key in PKCS#8/,
    ],
    ["is a JWK", '{"kty":"EC","alg":"ES256","kid":"k","d":"d"}', "jwk", null],
    ["is a public JWK", '{"kty":"EC","alg":"ES256","kid":"k"}', "jwk", /^secret KEY is not a private JWK/],
  ])("%s", (_what, value, form, message) => {
    const require = () => requireSecret({ KEY: value }, { name: "KEY", form });
    if (message === null) require();
    else expect(require).toThrow(message);
  });

  it("says nothing of its value", () => {
    expect(() => requireSecret({ KEY: "tiny-secret" }, sent("KEY"))).not.toThrow(/tiny/);
  });

  it("is the same object for the same text, and another after a rotation", async () => {
    const env = { ROTATED: VALUE };
    const first = await readSecret(env, sent("ROTATED"), 1);
    expect(await readSecret({ ...env }, sent("ROTATED"), 2)).toEqual(first);
    const again = await readSecret({ ...env }, sent("ROTATED"), 2);
    expect(first.ok && again.ok && first.value === again.value).toBe(true);
    const rotated = await readSecret({ ROTATED: `${VALUE}-2` }, sent("ROTATED"), 3);
    expect(rotated.ok && rotated.value.is(`${VALUE}-2`)).toBe(true);
  });

  it("is asked of a store once in five minutes, and what fails there gives none", async () => {
    let asked = 0;
    let answer: () => Promise<string> = async () => VALUE;
    const env = {
      STORED: {
        get: () => {
          asked++;
          return answer();
        },
      },
    };
    for (const atMs of [0, 1, 299_999]) expect((await readSecret(env, sent("STORED"), atMs)).ok).toBe(true);
    expect(asked).toBe(1);
    answer = async () => `${VALUE}-2`;
    const rotated = await readSecret(env, sent("STORED"), 300_000);
    expect(rotated.ok && rotated.value.is(`${VALUE}-2`)).toBe(true);
    answer = () => Promise.reject(new Error(`no ${VALUE}`));
    expect(await readSecret(env, sent("STORED"), 700_000)).toEqual({
      ok: false,
      error: "secret STORED could not be read",
    });
    answer = async () => "short";
    expect(await readSecret(env, sent("STORED"), 700_000)).toMatchObject({
      ok: false,
      error: expect.stringMatching(/shorter than 16/),
    });
  });

  it.each<[string, (text: string) => unknown]>([
    ["of the Worker", (text) => text],
    ["of a store", (text) => ({ get: async () => text })],
  ])("%s that two uses share is held to what each of them needs", async (where, binding) => {
    const name = `SHARED ${where}`;
    const env = { [name]: binding("short") };
    expect((await readSecret(env, { name, form: "any" }, 0)).ok).toBe(true);
    expect(await readSecret(env, sent(name), 1)).toMatchObject({
      ok: false,
      error: expect.stringMatching(/shorter than 16/),
    });
    expect(await readSecret(env, { name, form: "jwk" }, 2)).toMatchObject({ ok: false });
    expect((await readSecret(env, { name, form: "any" }, 3)).ok).toBe(true);
  });
});
