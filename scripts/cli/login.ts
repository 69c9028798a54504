// login and logout. The organisation's identity provider says who somebody is: OAuth 2.0 Device Authorization Grant (RFC 8628), so
// that the browser may be on another machine than this.

import { parseGate, parseRemote } from "../remote.ts";
import { noOperands, parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { expiryOf, findGate, parseNamed } from "./connection.ts";
import { type Confirmation, signInByDevice } from "./device-flow.ts";
import { readLogins, writeLogins } from "./login-file.ts";
import { utcMinute } from "./printable.ts";

/** The gate's admin client at the local identity provider. */
const LOCAL_CLIENT = "portcullis-admin";
const SCOPE = "openid email groups";

export const login: Command = {
  summary: "sign in at a gate, through its identity provider",
  usage: `portcullis login --gate <origin> --issuer <URL> --client-id <id>

The three are kept, so that the next time \`portcullis login\` is enough. The token is kept in
$XDG_CONFIG_HOME/portcullis/logins.json, which only you can read, and is sent to that gate alone.

  --gate <origin>      the gate (or PORTCULLIS_GATE)
  --issuer <URL>       its identity provider (or PORTCULLIS_ISSUER)
  --client-id <id>     the client of the gate's admins there: admins.audience in its configuration (or PORTCULLIS_CLIENT_ID).
                       It is public and may use the device flow (RFC 8628)
  --scope <scopes>     what to ask for (default: ${SCOPE})
  --dir <folder>       the stack that npm start runs from this folder: it says all of the above
  --json               for machines: first where to confirm, then who is signed in until when`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      gate: { type: "string" },
      dir: { type: "string" },
      issuer: { type: "string" },
      "client-id": { type: "string" },
      scope: { type: "string", default: SCOPE },
      json: { type: "boolean", default: false },
    });
    noOperands(operands);
    const { gate, local } = await findGate(options, io);
    const logins = await readLogins(io);
    const known = logins.gates[gate];
    const given = (option: string | undefined, name: string) => option ?? (io.env[name] || undefined);
    const issuer = given(options.issuer, "PORTCULLIS_ISSUER") ?? local?.issuer ?? known?.issuer;
    const clientId =
      given(options["client-id"], "PORTCULLIS_CLIENT_ID") ?? (local === null ? known?.clientId : LOCAL_CLIENT);
    if (issuer === undefined) throw new UsageError(`which identity provider does ${gate} believe? Say --issuer <URL>`);
    if (clientId === undefined) throw new UsageError(`which client is ${gate}'s there? Say --client-id <id>`);
    const token = await signInByDevice(parseNamed(parseRemote, issuer, "--issuer"), clientId, options.scope, (where) =>
      tell(where, options.json, io),
    );
    const kept = { ...logins.gates, [gate]: { issuer, clientId, token } };
    await writeLogins(io, { version: 1, current: gate, gates: kept });
    const expiresAtMs = expiryOf(token);
    if (options.json) io.json({ gate, issuer, expiresAtMs });
    else io.say(`Signed in at ${gate}${expiresAtMs === null ? "" : ` until ${utcMinute(expiresAtMs)}`}.`);
    return EXIT.ok;
  },
};

function tell(where: Confirmation, isJson: boolean, io: Io): void {
  if (isJson) io.json(where);
  else {
    io.say(`Open ${where.verificationUriComplete ?? where.verificationUri}`);
    io.say(`and confirm the code ${where.userCode}`);
  }
}

export const logout: Command = {
  summary: "forget the sign-in at a gate",
  usage: `portcullis logout [--gate <origin>]

  --gate <origin>      which (or PORTCULLIS_GATE; default: where you signed in last)`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      gate: { type: "string" },
      json: { type: "boolean", default: false },
    });
    noOperands(operands);
    const logins = await readLogins(io);
    const named = options.gate ?? (io.env["PORTCULLIS_GATE"] || undefined);
    const gate = named === undefined ? logins.current : parseNamed(parseGate, named, "--gate");
    const known = gate === null ? undefined : logins.gates[gate];
    if (gate === null || known === undefined || known.token === null)
      throw new CommandError(EXIT.no, gate === null ? "Signed in nowhere." : `Not signed in at ${gate}.`);
    const kept = { ...logins.gates, [gate]: { ...known, token: null } };
    await writeLogins(io, { ...logins, gates: kept });
    if (options.json) io.json({ gate });
    else io.say(`Signed out at ${gate}. The token itself is good until it runs out.`);
    return EXIT.ok;
  },
};
