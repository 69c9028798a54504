// Prints the ID token that a client of the local organisation gets of a human, the platform's where none is named:
// `node id-token.ts <issuer> <human> [<client>]`.

import { type Human, humans, oidcClients } from "./humans.ts";
import { signInAt } from "./sign-in.ts";

const [issuer = "", human = "", named = "build-platform-app"] = process.argv.slice(2);
if (!Object.hasOwn(humans, human)) throw new Error(`${human} is nobody here: ${Object.keys(humans).join(", ")}`);
const client = oidcClients.find((one) => one === named);
if (client === undefined) throw new Error(`${named} is no client here: ${oidcClients.join(", ")}`);
console.log(await signInAt(issuer, human as Human, client));
