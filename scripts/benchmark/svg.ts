/** A plot of one medium: per row a bar for each server, as a share of the fastest. */
import { type BenchReport, fullRows, median } from "./report.js";
import type { Medium } from "./rows.js";

const LABEL_WIDTH = 270;
const BAR_WIDTH = 480;
const FIGURE_WIDTH = 90;
const BAR_HEIGHT = 12;
const ROW_GAP = 14;
const HEAD_HEIGHT = 40;
const COLOURS = ["#1b6ca8", "#7aa6c2", "#b5b5b5", "#d9a441", "#8f6fae"];

function text(x: number, y: number, content: string, extra = ""): string {
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x}" y="${y}"${extra}>${escaped}</text>`;
}

/** An SVG document, or null when nothing was measured on the medium. */
export function plot(report: BenchReport, medium: Medium): string | null {
  const rows = fullRows(report, medium);
  if (rows.length === 0) return null;
  const servers = report.servers.filter((server) => rows.some((row) => row.samples[server] !== undefined));
  const out: string[] = [];
  let x = LABEL_WIDTH;
  servers.forEach((server, i) => {
    out.push(`<rect x="${x}" y="10" width="${BAR_HEIGHT}" height="${BAR_HEIGHT}" fill="${colour(i)}"/>`);
    out.push(text(x + BAR_HEIGHT + 4, 20, server));
    x += 40 + 8 * server.length;
  });
  let y = HEAD_HEIGHT;
  for (const { row, samples } of rows) {
    const figures = servers.map((server) => median((samples[server] ?? []).map(({ iops }) => iops)));
    const most = Math.max(...figures.filter(Number.isFinite));
    out.push(text(LABEL_WIDTH - 8, y + BAR_HEIGHT * 1.5, row, ' text-anchor="end"'));
    figures.forEach((figure, i) => {
      if (!Number.isFinite(figure)) return;
      const width = Math.max(1, Math.round((figure / most) * BAR_WIDTH));
      out.push(
        `<rect x="${LABEL_WIDTH}" y="${y}" width="${width}" height="${BAR_HEIGHT - 1}" fill="${colour(i)}"/>`,
      );
      out.push(text(LABEL_WIDTH + width + 4, y + BAR_HEIGHT - 2, Math.round(figure).toLocaleString("en")));
      y += BAR_HEIGHT;
    });
    y += ROW_GAP;
  }
  const width = LABEL_WIDTH + BAR_WIDTH + FIGURE_WIDTH;
  const style =
    '<style>text { font: 11px sans-serif; fill: #222 }</style><rect width="100%" height="100%" fill="#fff"/>';
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}">${style}\n${out.join("\n")}\n</svg>\n`;
}

function colour(index: number): string {
  return COLOURS[index % COLOURS.length]!;
}
