// docs/nbd-conformance.md is what its generator would write, and no row of it is without a test.
import { readFileSync } from "node:fs";
import t from "tap";
import { run } from "../interop/support/process.js";

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
