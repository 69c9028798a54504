// Sign-ins that are kept: one for each gate, in a file that only its owner can read. A token is only ever sent to the gate that it
// was got for.

import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";
import { CommandError, EXIT, type Io } from "./command.ts";

const login = z.strictObject({
  issuer: z.url(),
  clientId: z.string().min(1),
  /** Null: signed out; where to sign in is still known. */
  token: z.string().min(1).nullable(),
});
const loginFile = z.strictObject({
  version: z.literal(1),
  /** The gate that was signed in at last. */
  current: z.string().nullable(),
  gates: z.record(z.string(), login),
});

export type Login = z.infer<typeof login>;
export type LoginFile = z.infer<typeof loginFile>;

/** XDG Base Directory Specification: a relative path there is to be ignored. */
const pathOf = ({ env }: Io): string => {
  const configured = env["XDG_CONFIG_HOME"] ?? "";
  const base = configured.startsWith("/") ? configured : join(env["HOME"] ?? homedir(), ".config");
  return join(base, "portcullis", "logins.json");
};

export async function readLogins(io: Io): Promise<LoginFile> {
  const path = pathOf(io);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return { version: 1, current: null, gates: {} };
    throw new CommandError(EXIT.forbidden, `${path} can't be read: ${(cause as Error).message}`);
  }
  try {
    return loginFile.parse(JSON.parse(text));
  } catch {
    throw new CommandError(EXIT.forbidden, `${path} is no file of sign-ins. Delete it, and sign in again.`);
  }
}

/** Written aside and moved: the mode is right from the first byte, and a reader never sees half a file. */
export async function writeLogins(io: Io, logins: LoginFile): Promise<string> {
  const path = pathOf(io);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const aside = `${path}.${randomBytes(6).toString("hex")}`;
  await writeFile(aside, `${JSON.stringify(logins, null, 2)}\n`, { mode: 0o600, flag: "wx" });
  await rename(aside, path);
  return path;
}
