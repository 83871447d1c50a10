#!/usr/bin/env node
// Builds addon/attach into one static program; downloads nothing. Does nothing when the result is newer than
// everything it is made of.
//
//   build-attach.mjs [--sanitize]   a second program under AddressSanitizer and UBSan
//
// Prints the path of the program. Where the C library has no static form (package libc6-dev on Debian has it),
// the program is linked dynamically, and says so.

import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ATTACH = join(dirname(dirname(fileURLToPath(import.meta.url))), "addon", "attach");
const sanitize = process.argv.includes("--sanitize");
const target = sanitize ? "build/lamina-attach-sanitize" : "build/lamina-attach";

function fail(message) {
  console.error(`build-attach: ${message}`);
  process.exit(1);
}

function make(...args) {
  const result = spawnSync("make", ["-s", "-C", ATTACH, target, ...args], { encoding: "utf8" });
  if (result.error !== undefined)
    fail("'make' not found. Install it with: apt-get install make gcc libc6-dev");
  return result;
}

let result = make();
if (result.status !== 0 && /cannot find -lc\b/.test(result.stderr)) {
  console.error("build-attach: there is no static C library here, so lamina-attach runs on this system only");
  result = make("STATIC=");
}
if (result.status !== 0) fail(`make failed:\n${result.stderr}`);
console.log(join(ATTACH, target));
