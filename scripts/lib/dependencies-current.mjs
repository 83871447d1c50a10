// Exits 0 when node_modules holds what package-lock.json says, else 1.
//   node dependencies-current.mjs ROOT
import { readFileSync } from "node:fs";
import { join } from "node:path";

const root = process.argv[2];

function packages(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), "utf8")).packages;
  } catch {
    return undefined;
  }
}

const wanted = packages("package-lock.json");
const installed = packages("node_modules/.package-lock.json");

/** Packages of other platforms are optional: absent is fine, another version is not. */
function matches([path, entry]) {
  if (!path.startsWith("node_modules/")) return true;
  const found = installed[path];
  if (found === undefined) return entry.optional === true || entry.peer === true;
  return found.version === entry.version && found.integrity === entry.integrity;
}

process.exitCode = wanted && installed && Object.entries(wanted).every(matches) ? 0 : 1;
