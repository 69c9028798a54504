import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { reasonOf, usageFault } from "./ending.ts";

const jwk = z.looseObject({ kty: z.enum(["EC", "OKP"]), kid: z.string().min(1), d: z.string().min(1) });
const file = z.strictObject({
  gate: z.string().optional(),
  /** The platform's name: its OAuth client at the gate. */
  client: z.string().min(1),
  /** Its private JWK, or where that is, relative to this file. */
  clientKey: z.union([jwk, z.string().min(1)]),
  /** The human's ID token, or where it is, or what prints it. */
  idToken: z.union([
    z.string().regex(/^[\w-]+\.[\w-]+\.[\w-]+$/, "is not a JWT"),
    z.strictObject({ file: z.string().min(1) }),
    z.strictObject({ command: z.string().min(1) }),
  ]),
  task: z.string().min(1),
  purpose: z.string().min(1),
  /** NumericDate, or how long from now. */
  deadline: z.int().positive().optional(),
  seconds: z.int().positive().optional(),
  agentVersion: z.string().min(1),
  authorization_details: z.array(z.looseObject({ type: z.string() })).min(1),
});

/** All that a token exchange is made of, with keys and tokens in place. */
export interface ProvisionFile {
  readonly gate: string | undefined;
  readonly client: string;
  readonly clientKey: z.infer<typeof jwk>;
  readonly idToken: string;
  readonly task: string;
  readonly purpose: string;
  /** NumericDate. */
  readonly deadline: number;
  readonly agentVersion: string;
  readonly authorizationDetails: readonly object[];
}

/** Throws an `Ending` that names the member. */
export function parseProvisionFile(text: string, path: string): ProvisionFile {
  const fault = (problem: string) => usageFault(`--provision ${path}: ${problem}`);
  const parsed = file.safeParse(parseJson(text, fault));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw fault(`${issue?.path.join(".") || "the file"}: ${issue?.message}`);
  }
  const { data } = parsed;
  if ((data.deadline === undefined) === (data.seconds === undefined)) throw fault("give one of deadline and seconds");
  const beside = (name: string, member: string): string => {
    try {
      return readFileSync(resolve(dirname(path), name), "utf8").trim();
    } catch (cause) {
      throw fault(`${member}: ${reasonOf(cause)}`);
    }
  };
  const readKey = (name: string): z.infer<typeof jwk> => {
    const key = jwk.safeParse(parseJson(beside(name, "clientKey"), fault));
    if (!key.success) throw fault("clientKey: not a private JWK with a kid");
    return key.data;
  };
  const readIdToken = (): string => {
    if (typeof data.idToken === "string") return data.idToken;
    if ("file" in data.idToken) return beside(data.idToken.file, "idToken");
    try {
      return execFileSync(data.idToken.command, {
        shell: true,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
      }).trim();
    } catch {
      throw fault("idToken: its command failed");
    }
  };
  return {
    gate: data.gate,
    client: data.client,
    clientKey: typeof data.clientKey === "string" ? readKey(data.clientKey) : data.clientKey,
    idToken: readIdToken(),
    task: data.task,
    purpose: data.purpose,
    deadline: data.deadline ?? Math.floor(Date.now() / 1000) + data.seconds!,
    agentVersion: data.agentVersion,
    authorizationDetails: data.authorization_details,
  };
}

function parseJson(text: string, fault: (problem: string) => Error): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw fault("not JSON");
  }
}
