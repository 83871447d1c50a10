/**
 * The tally of long runs: lines of JSON in a file, one for what a minute added, so that a run which is ended by force
 * is counted too. What was run on the same code of the core rooms adds up over runs.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";

/** What the simulator of one machine runs: a change of the source of one of these begins a new count. */
export const MACHINE_ROOMS = ["lib/core", "lib/nbd", "lib/store", "lib/volume"];
/** The same of the simulated cluster. */
export const CLUSTER_ROOMS = ["lib/core", "lib/replica", "lib/store", "lib/volume"];
/** The catalogue of error texts: it grows with every command and decides nothing. */
const NOT_COUNTED = "lib/core/errors.ts";

interface Line {
  /** Commit, with "+" behind it when there were changes on top. */
  readonly commit: string;
  /** Digest of the rooms at that commit. */
  readonly core: string;
  readonly at: string;
  readonly seeds: number;
  readonly events: number;
  readonly violations: number;
}

/** What was run so far, from the beginning of a run on. */
export interface Told {
  readonly seeds: number;
  readonly events: number;
  readonly violations: number;
}

export class Tally {
  readonly #path: string;
  readonly #commit: string;
  readonly #core: string;
  #told: Told = { seeds: 0, events: 0, violations: 0 };

  /** `rooms`: what a count is of. */
  constructor(path: string, rooms: readonly string[]) {
    this.#path = path;
    mkdirSync(dirname(path), { recursive: true });
    const dirty = git("status", "--porcelain", "--", "lib", "test/sim") === "" ? "" : "+";
    this.#commit = git("rev-parse", "--short=12", "HEAD") + dirty;
    this.#core = digestOf(
      git("ls-tree", "-r", "HEAD", "--", ...rooms)
        .split("\n")
        .filter((line) => line.endsWith(".ts") && !line.endsWith(`\t${NOT_COUNTED}`)),
    );
  }

  /** Adds what has come since it was told last. `at` is a label. */
  tell(now: Told, at: Date): void {
    const line: Line = {
      commit: this.#commit,
      core: this.#core,
      at: at.toISOString(),
      seeds: now.seeds - this.#told.seeds,
      events: now.events - this.#told.events,
      violations: now.violations - this.#told.violations,
    };
    this.#told = { ...now };
    if (line.seeds > 0 || line.violations > 0) appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
  }

  /** The sums over all runs: on this commit, and since the rooms changed. */
  text(): string {
    const lines = existsSync(this.#path)
      ? readFileSync(this.#path, "utf8")
          .split("\n")
          .filter((line) => line !== "")
          .map((line) => JSON.parse(line) as Line)
      : [];
    const sum = (of: readonly Line[]): string => {
      const add = (get: (line: Line) => number): number => of.reduce((total, line) => total + get(line), 0);
      return `${add(({ events }) => events)} events, ${add(({ seeds }) => seeds)} seeds, ${add(({ violations }) => violations)} violations`;
    };
    return [
      `on commit ${this.#commit}: ${sum(lines.filter(({ commit }) => commit === this.#commit))}`,
      `since the core rooms last changed: ${sum(lines.filter(({ core }) => core === this.#core))}`,
      `(${this.#path})`,
    ].join("\n");
  }
}

function digestOf(lines: readonly string[]): string {
  return createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 20);
}

function git(...args: string[]): string {
  return (spawnSync("git", args, { encoding: "utf8" }).stdout ?? "").trim();
}
