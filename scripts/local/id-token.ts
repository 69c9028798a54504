// Prints the ID token that the platform of the local organisation gets of a human: `node id-token.ts <issuer> <human>`.

import { type Human, humans } from "./humans.ts";
import { signInAt } from "./sign-in.ts";

const [issuer = "", human = ""] = process.argv.slice(2);
if (!Object.hasOwn(humans, human)) throw new Error(`${human} is nobody here: ${Object.keys(humans).join(", ")}`);
console.log(await signInAt(issuer, human as Human, "build-platform-app"));
