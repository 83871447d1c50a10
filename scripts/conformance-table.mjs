// docs/nbd-conformance.md from the names of the tests.
//
//   node scripts/conformance-table.mjs            writes the page
//   node scripts/conformance-table.mjs --check    ends with 1 when the page is not what would be written
//
// A test belongs to a row when its name begins with the row's id, or with several ids and a colon behind them
// ("X6, X13: ..."). A row without any test is said to be open; that is all the page can know: whether the tests
// pass is what running them says.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PAGE = join(ROOT, "docs", "nbd-conformance.md");
const ROWS = join(ROOT, "test", "conformance", "rows.json");
const UNIT = [join(ROOT, "test", "unit", "nbd"), join(ROOT, "test", "unit", "gateway")];
const LIVE = ["conformance", "fuzz", "interop"].map((folder) => join(ROOT, "test", folder));

const IDS = /^((?:[A-Z]\d+|CVE-\d+-\d+)(?:, (?:[A-Z]\d+|CVE-\d+-\d+))*):/;
const TEST = /(?:\bt\.test|\brow)\(\s*"((?:[^"\\]|\\.)*)"/g;

function testsBelow(folder) {
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".test.ts"));
  return files.sort().flatMap((name) => {
    const path = join(folder, name);
    const source = readFileSync(path, "utf8");
    return [...source.matchAll(TEST)].map((match) => ({ file: relative(ROOT, path), name: match[1] }));
  });
}

/** Files of the tests that name an id. */
function filesById(tests) {
  const found = new Map();
  for (const { file, name } of tests) {
    for (const id of IDS.exec(name)?.[1].split(", ") ?? []) {
      if (!found.has(id)) found.set(id, new Set());
      found.get(id).add(file);
    }
  }
  return found;
}

function links(files) {
  if (files === undefined) return "";
  return [...files]
    .map((file) => `[${file.split("/").at(-1).replace(".test.ts", "")}](../${file})`)
    .join(", ");
}

/** Pads the cells of every table to the width of its columns. */
function aligned(lines) {
  const out = [];
  for (let at = 0; at < lines.length; ) {
    let end = at;
    while (end < lines.length && lines[end].startsWith("| ")) end++;
    if (end === at) {
      out.push(lines[at++]);
      continue;
    }
    const table = lines.slice(at, end).map((line) => line.slice(2, -2).split(" | "));
    const widths = table[0].map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
    for (const cells of table) {
      const padded = cells.map((cell, i) =>
        cell === "---" ? "-".repeat(widths[i]) : cell.padEnd(widths[i]),
      );
      out.push(`| ${padded.join(" | ")} |`);
    }
    at = end;
  }
  return out;
}

/** What a formatter may change: widths of columns. */
function unpadded(text) {
  return text.replaceAll(/ +/g, " ").replaceAll(/-{3,}/g, "---");
}

function page() {
  const rows = JSON.parse(readFileSync(ROWS, "utf8"));
  const unit = filesById(UNIT.flatMap(testsBelow));
  const live = filesById(LIVE.flatMap(testsBelow));
  const known = new Set(rows.map(([id]) => id));
  for (const id of [...unit.keys(), ...live.keys()]) {
    if (!id.startsWith("CVE") && !known.has(id))
      throw new Error(`a test names row ${id}, which does not exist`);
  }
  const lines = [
    "# Conformance with the NBD protocol",
    "",
    "Generated from the names of the tests by `scripts/conformance-table.mjs`; a test says so when it is not current.",
    "The rules are those of the specification (doc/proto.md of NetworkBlockDevice/nbd) in our words.",
    "",
    "- **unit**: the protocol machines of `lib/nbd` alone, fed bytes ([test/unit/nbd](../test/unit/nbd)), or the gateway",
    "  on a simulated network ([test/unit/gateway](../test/unit/gateway)).",
    "- **live**: a running server, over TCP and a unix socket, driven by a client that says illegal things too",
    "  ([test/conformance](../test/conformance)), whose replies pass through a checker of the protocol's rules, or by the",
    "  clients of the field ([test/interop](../test/interop)).",
    "- **open**: no test names the row.",
    "",
  ];
  let open = 0;
  for (const [id, level, rule] of rows) {
    if (level === undefined) {
      lines.push(
        `## ${id}`,
        "",
        "| row | level | rule | status | tests |",
        "| --- | --- | --- | --- | --- |",
      );
      continue;
    }
    const kinds = [unit.has(id) ? "unit" : "", live.has(id) ? "live" : ""].filter(Boolean);
    if (kinds.length === 0) open++;
    const where = [links(unit.get(id)), links(live.get(id))].filter(Boolean).join(", ");
    lines.push(`| ${id} | ${level} | ${rule} | ${kinds.join(", ") || "open"} | ${where} |`);
  }
  const cves = [...new Set([...unit.keys(), ...live.keys()])].filter((id) => id.startsWith("CVE")).sort();
  lines.push("## Vulnerabilities of other servers and clients", "", "| id | tests |", "| --- | --- |");
  for (const id of cves) {
    lines.push(`| ${id} | ${[links(unit.get(id)), links(live.get(id))].filter(Boolean).join(", ")} |`);
  }
  const text = `${aligned(lines).join("\n").replaceAll("\n## ", "\n\n## ").replaceAll("\n\n\n", "\n\n")}\n`;
  return { text, open };
}

const { text, open } = page();
if (process.argv.includes("--check")) {
  if (!existsSync(PAGE) || unpadded(readFileSync(PAGE, "utf8")) !== unpadded(text)) {
    console.error("docs/nbd-conformance.md is not current: run node scripts/conformance-table.mjs");
    process.exit(1);
  }
} else {
  writeFileSync(PAGE, text);
  console.log(`docs/nbd-conformance.md: ${open} rows without a test`);
}
