/** docs/nbd-deviations.md as deviations.ts has it. */
import { DEVIATIONS, PEERS, QUESTIONS, type Why } from "./deviations.js";

const HEAD = `# Where other servers answer otherwise

The same questions, put byte by byte to Lamina and to three servers of the field: nbdkit 1.32.5, qemu-nbd 7.2.22 and
nbd-server 3.24, as Debian 12 has them. What is not listed here they all answer alike. \`./scripts/differential\` asks
again; a test fails when a difference is not in this list, and another when this page is not what
\`test/conformance/deviations.ts\` says. "closed" is the end of the connection, "silence" is three seconds without an
answer.
`;

const WHY: Readonly<Record<Why, string>> = {
  may: "both",
  theirs: "Lamina",
  unsupported: "they lack the feature",
};

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |\n`;
  const rule = line(widths.map((width) => "-".repeat(width)));
  return line(rows[0]!) + rule + rows.slice(1).map(line).join("");
}

export function deviationsPage(): string {
  const sections = PEERS.map((peer) => {
    const rows = DEVIATIONS.filter(({ server }) => server === peer).map(({ probe, answer, why }) => {
      const { lamina, rule } = QUESTIONS[probe]!;
      return [probe, answer, lamina, WHY[why], rule];
    });
    return `\n## ${peer}\n\n${table([["question", peer, "Lamina", "who is right", "the rule"], ...rows])}`;
  });
  return HEAD + sections.join("");
}
