/** A progress bar on standard error for what takes longer than two seconds; on a terminal only. */
import { formatBytes } from "./size.js";

const SHOW_AFTER_MS = 2000;
const REDRAW_MS = 200;
const BAR_CELLS = 30;

export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #quiet: boolean;
  readonly #startedAt = performance.now();
  #drawnAt = 0;
  #done = 0;

  /** `total` in bytes. */
  constructor(label: string, total: number, quiet: boolean) {
    this.#label = label;
    this.#total = total;
    this.#quiet = quiet || process.stderr.isTTY !== true;
  }

  add(bytes: number): void {
    this.set(this.#done + bytes);
  }

  set(done: number): void {
    this.#done = done;
    const now = performance.now();
    if (this.#quiet || now - this.#startedAt < SHOW_AFTER_MS || now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    process.stderr.write(`\r${this.#line(now)}\x1b[K`);
  }

  /** Removes the bar. */
  end(): void {
    if (this.#drawnAt > 0) process.stderr.write("\r\x1b[K");
  }

  #line(now: number): string {
    const part = this.#total === 0 ? 1 : Math.min(1, this.#done / this.#total);
    const cells = Math.round(part * BAR_CELLS);
    const bar = "#".repeat(cells) + "-".repeat(BAR_CELLS - cells);
    const perSecond = (this.#done / Math.max(1, now - this.#startedAt)) * 1000;
    const left = perSecond > 0 ? Math.ceil((this.#total - this.#done) / perSecond) : 0;
    const rate = `${formatBytes(Math.round(perSecond))}/s`;
    return `${this.#label} [${bar}] ${Math.floor(part * 100)} % of ${formatBytes(this.#total)}, ${rate}, ${left} s left`;
  }
}
