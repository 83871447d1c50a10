/** docs/errors.md as the catalogue has it. */
import { CATALOGUE } from "../../../../lib/core/errors.js";

const HEAD = `# Errors

Every failure that a person can see has a code, one sentence that says what is wrong, and the next step. Commands print
\`lamina: SENTENCE; NEXT STEP (LAMINA_CODE)\` on standard error, with \`--json\` the same as
\`{"error": {"code", "message", "next"}}\`, and end with the exit code below. The admin API answers with the HTTP status
and the same object. Words in braces stand for what it is about. The list is lib/core/errors.ts; a test compares.

| code | exit | HTTP | what is wrong | next step |
| ---- | ---- | ---- | ------------- | --------- |
`;

export function errorsPage(): string {
  const rows = Object.entries(CATALOGUE).map(([code, { exit, http, message, next }]) => {
    const cells = [`LAMINA_${code}`, exit, http, message, next];
    return `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |\n`;
  });
  return HEAD + rows.join("");
}
