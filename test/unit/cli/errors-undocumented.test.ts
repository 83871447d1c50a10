import { readFileSync, writeFileSync } from "node:fs";
import t from "tap";
import { CATALOGUE } from "../../../lib/core/errors.js";
import { errorsPage } from "./support/errors-page.js";

const page = new URL("../../../docs/errors.md", import.meta.url);

t.test("docs/errors.md is the catalogue", async (t) => {
  if (process.env["LAMINA_WRITE_DOCS"] === "1") writeFileSync(page, errorsPage());
  const same = readFileSync(page, "utf8") === errorsPage();
  t.ok(same, "write it anew with: LAMINA_WRITE_DOCS=1 npx tap test/unit/cli/errors-undocumented.test.ts");
});

t.test("every entry is one sentence and one clause", async (t) => {
  for (const [code, { message, next }] of Object.entries(CATALOGUE)) {
    t.match(code, /^[A-Z_]+$/);
    t.notMatch(message, /[.;]$|\n/, `${code}: the message`);
    t.notMatch(next, /\.$|\n/, `${code}: the next step`);
    t.ok(next.length > 0);
  }
});
