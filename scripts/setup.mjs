// Runs before start, test, check and bench, and in the command line's launcher, on whatever Node the system has (20 or newer), and needs no package.
// Installs the locked dependencies when node_modules is missing or was made from another lockfile. The Node that
// runs everything after this is one of those dependencies (node-linux-*): npm puts node_modules/.bin first on PATH.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const stamp = `${root}node_modules/.portcullis-lock`;
const lock = createHash("sha256")
  .update(readFileSync(`${root}package-lock.json`))
  .digest("hex");

const installed = existsSync(stamp) && readFileSync(stamp, "utf8") === lock;
if (!installed) {
  // Not to stdout: that belongs to the command which comes after this.
  console.error("Installing the locked dependencies (npm ci), once.");
  execFileSync("npm", ["ci", "--no-fund", "--no-audit", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", process.stderr, process.stderr],
  });
  writeFileSync(stamp, lock);
}

// The toolchain needs Node 22.12. Where no packaged Node fits this platform, the system's must do.
const packaged = existsSync(`${root}node_modules/.bin/node`);
const [major, minor] = process.versions.node.split(".").map(Number);
if (!packaged && (major < 22 || (major === 22 && minor < 12))) {
  console.error(`Portcullis needs Node 22.12 or newer on this platform; this is ${process.version}.`);
  process.exit(1);
}
