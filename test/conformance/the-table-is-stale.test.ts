// docs/nbd-conformance.md and docs/nbd-deviations.md are what their generators would write, and no row of the table is
// without a test.
import { readFileSync, writeFileSync } from "node:fs";
import t from "tap";
import { run } from "../interop/support/process.js";
import { deviationsPage } from "./deviations-page.js";

const ROOT = new URL("../../", import.meta.url).pathname.replace(/dist\/$/, "");

t.test("the table is current", async (t) => {
  const result = await run(process.execPath, [`${ROOT}scripts/conformance-table.mjs`, "--check"]);
  t.equal(result.code, 0, result.stderr);
});

t.test("every row has a test", async (t) => {
  const rows =
    readFileSync(`${ROOT}docs/nbd-conformance.md`, "utf8").match(/^\| [HOTXZCD]\d+ +\|.*$/gm) ?? [];
  t.ok(rows.length > 70, `${rows.length} rows`);
  t.same(
    rows.filter((row) => /\| open +\|/.test(row)),
    [],
  );
});

t.test("the list of deviations is current", async (t) => {
  const page = `${ROOT}docs/nbd-deviations.md`;
  if (process.env["LAMINA_WRITE_DOCS"] === "1") writeFileSync(page, deviationsPage());
  const same = readFileSync(page, "utf8") === deviationsPage();
  t.ok(same, "write it anew with: LAMINA_WRITE_DOCS=1 npx tap test/conformance/the-table-is-stale.test.ts");
});
