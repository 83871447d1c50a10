#!/usr/bin/env node
// Builds addon/ with node-gyp, from the headers beside the running Node; downloads nothing. Does nothing when the
// result is newer than everything it is made of.
//
//   build-addon.mjs [--sanitize=address]   a second build under AddressSanitizer, in addon/build/address

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const ADDON = join(ROOT, "addon");
const NAME = "lamina_uring.node";

const sanitize = process.argv.includes("--sanitize=address") ? "address" : "";
const output = sanitize === "" ? join(ADDON, "build") : join(ADDON, "build", sanitize);

/** Identity of the result: sources, options and the Node it is built for (uv.h is not covered by N-API). */
function recipe() {
  const hash = createHash("sha256").update(`${process.version} ${process.arch} ${sanitize}\n`);
  hash.update(readFileSync(join(ADDON, "binding.gyp")));
  for (const file of readdirSync(join(ADDON, "src")).sort()) {
    hash.update(file).update(readFileSync(join(ADDON, "src", file)));
  }
  return hash.digest("hex");
}

function fail(message) {
  console.error(`build-addon: ${message}`);
  process.exit(1);
}

/** Prefix whose include/node has the headers of this very Node. */
function headersPrefix() {
  const prefix = dirname(dirname(process.execPath));
  const include = join(prefix, "include", "node");
  const missing = ["node_api.h", "uv.h"].filter((header) => !existsSync(join(include, header)));
  // Debian's nodejs keeps uv.h in the compiler's own path.
  const absent = missing.filter((header) => header !== "uv.h" || !existsSync("/usr/include/uv.h"));
  if (absent.length > 0) {
    fail(
      `${absent.join(" and ")} not found in ${include}. Install the headers of Node ${process.version}: ` +
        "apt-get install libnode-dev libuv1-dev (Debian's Node), or use a Node distribution that carries include/node",
    );
  }
  return prefix;
}

function requireTool(tool, advice) {
  if (spawnSync(tool, ["--version"], { stdio: "ignore" }).error !== undefined) {
    fail(`'${tool}' not found. Install it with: apt-get install ${advice}`);
  }
}

const stampFile = join(output, "recipe");
const result = join(output, "Release", NAME);
const stamp = recipe();
if (existsSync(result) && existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) {
  console.log(`addon is up to date (${result})`);
  process.exit(0);
}

requireTool("make", "make");
requireTool("cc", "gcc libc6-dev");
requireTool("python3", "python3");
const gyp = createRequire(import.meta.url).resolve("node-gyp/bin/node-gyp.js");
const nodedir = headersPrefix();

// node-gyp builds in ./build and begins by deleting it: so it works on a copy, and the result is moved into its
// place whole. A running program keeps the file that it has mapped.
const workdir = join(output, "work");
rmSync(workdir, { recursive: true, force: true });
mkdirSync(join(workdir, "src"), { recursive: true });
copyFileSync(join(ADDON, "binding.gyp"), join(workdir, "binding.gyp"));
for (const file of readdirSync(join(ADDON, "src"))) {
  copyFileSync(join(ADDON, "src", file), join(workdir, "src", file));
}
const args = [gyp, "rebuild", `--nodedir=${nodedir}`, "--jobs=2", "--loglevel=warn"];
if (sanitize !== "") args.push("--", `-Dsanitize=${sanitize}`);
try {
  execFileSync(process.execPath, args, { cwd: workdir, stdio: "inherit" });
} catch {
  fail("the compiler's messages are above");
}
mkdirSync(join(output, "Release"), { recursive: true });
renameSync(join(workdir, "build", "Release", NAME), result);
rmSync(workdir, { recursive: true, force: true });
writeFileSync(stampFile, stamp);
console.log(`built ${result}`);
