// Holds and erasures from the command line, against the running gate: what is printed, how it ends, and that the rest still verifies.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { humans } from "../../scripts/local/humans.ts";
import { type Harness, startHarness } from "./harness.ts";

let h: Harness;
let dir: string;
beforeAll(async () => {
  h = await startHarness({ addresses: { flushAfterMs: 100 } });
  dir = await mkdtemp(join(tmpdir(), "portcullis-erase-"));
});
afterAll(async () => {
  await h.close();
  await rm(dir, { recursive: true, force: true });
});

const by = (sub: string, group: string) => h.idToken({ sub, groups: [group], aud: "portcullis-admin" });
async function run(token: string, ...args: string[]) {
  const [out, err]: [string[], string[]] = [[], []];
  const env = { XDG_CONFIG_HOME: dir, PORTCULLIS_GATE: h.origin, PORTCULLIS_TOKEN: token };
  const io = createIo({ write: (text) => out.push(text) }, { write: (text) => err.push(text) }, env);
  const code = await runCommand(args, io);
  return { code, out: out.join(""), err: err.join("") };
}

/** The whole bucket, and the keys, as any S3 tool would copy them. */
async function copyBucket(folder: string): Promise<void> {
  const bucket = await h.gate.miniflare.getR2Bucket("TRANSCRIPTS");
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "seal-keys.json"), (await h.send("/.well-known/portcullis-seal-keys.json", {})).text);
  for (const { key } of (await bucket.list()).objects) {
    await mkdir(dirname(join(folder, key)), { recursive: true });
    await writeFile(join(folder, key), Buffer.from(await (await bucket.get(key))!.arrayBuffer()));
  }
}

describe("erase and hold", () => {
  it("a hold forbids it, two auditors release it, an operator erases by address, and the bodies are gone", async () => {
    const [ops, one, two] = [by("op", "security-ops"), by("a-1", "security-audit"), by("a-2", "security-audit")];
    await h.provision({ human: "ada" });
    const claims = { sub: "00u9", email: "eve@acme.example", groups: ["engineering"], aud: "build-platform-app" };
    await h.provision({ form: { subject_token: h.idToken(claims) } });
    const bucket = await h.gate.miniflare.getR2Bucket("TRANSCRIPTS");
    const bodies = async () => (await bucket.list({ prefix: "bodies/" })).objects.map(({ key }) => key);
    await expect.poll(async () => (await bodies()).length, { timeout: 10_000 }).toBe(2);

    const { out } = await run(by("v", "security-oncall"), "ps", "--human", humans.ada.email, "--json");
    const [{ human }] = (JSON.parse(out) as { instances: [{ human: string }] }).instances;
    const held = await run(one, "hold", "human", humans.ada.email, "--reason", "a lawsuit", "--json");
    expect([held.code, JSON.parse(held.out)]).toEqual([
      0,
      expect.objectContaining({ subject: { kind: "human", id: human } }),
    ]);
    const { id } = JSON.parse(held.out) as { id: string };
    expect(await run(one, "holds")).toMatchObject({
      code: 0,
      out: expect.stringMatching(`${id} .* stands +human ${human}`),
    });

    const erase = ["erase", "human", human, "--reason", "asked to be forgotten", "--yes"];
    expect(await run(ops, ...erase)).toMatchObject({
      code: 1,
      out: "",
      err: `Refused: hold ${id} keeps human ${human}\n`,
    });
    expect(await run(one, ...erase)).toMatchObject({ code: 3, err: "Not allowed: this needs the role operator\n" });
    expect(await bodies()).toHaveLength(2);

    const release = ["hold", "release", id, "--reason", "settled"];
    expect(await run(one, ...release)).toMatchObject({
      code: 1,
      out: expect.stringContaining("awaits a second auditor"),
    });
    expect(await run(two, ...release)).toMatchObject({ code: 0, out: expect.stringMatching(/^Released/) });
    expect((await run(two, "holds")).out).toMatch(/^No hold at /);
    expect((await run(two, "holds", "--all")).out).toContain(" released ");

    const byAddress = ["erase", "human", humans.ada.email, ...erase.slice(3)];
    // An operator alone may look who is enrolled, too.
    const done = await run(ops, ...byAddress);
    expect(done).toMatchObject({ code: 0, err: "" });
    expect(done.out).toMatch(
      /^Erased: bodies of human [\w-]{43}, up to .*\n {2}1 object deleted, \d+ bytes; 0 written anew; /,
    );
    const left = await bodies();
    expect([left.length, left.some((key) => key.includes(human))]).toEqual([1, false]);
    expect((await bucket.list({ prefix: `erasures/human=${human}/` })).objects).toHaveLength(1);
    expect((await bucket.list({ prefix: `transcripts/human=${human}/` })).objects).toHaveLength(1);
    const copy = join(dir, "copy");
    await copyBucket(copy);
    const verified = await run(ops, "verify", copy);
    expect(verified.code).toBe(0);
    expect(verified.out).toContain(", 1 body erased (");
    await rm(join(copy, "erasures"), { recursive: true });
    expect((await run(ops, "verify", copy)).code).toBe(1);
    expect(await run(ops, "erase", "human", "nobody@acme.example", ...erase.slice(3))).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^Nobody with that address/),
    });
  });
});
