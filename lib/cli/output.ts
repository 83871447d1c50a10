/** What commands print: results on standard output, everything else on standard error. */
import { CATALOGUE, type ErrorCode, LaminaError } from "../core/errors.js";
import { ApiError } from "./client.js";

/** Exit codes: 0 done, 1 failed, 64 wrong usage (EX_USAGE of sysexits; the catalogue of errors says which). */
export const EXIT_FAILED = 1;

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Columns as wide as their content. An empty table prints its titles. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? "").length)),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ right }, i) => {
        const cell = cells[i] ?? "";
        return right === true ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!);
      })
      .join("  ")
      .trimEnd();
  return [bold(line(columns.map(({ title }) => title))), ...rows.map(line)].join("\n");
}

/** "name   value" lines. */
export function fields(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}

const isStyled = (stream: NodeJS.WriteStream): boolean =>
  stream.isTTY === true && (process.env["NO_COLOR"] ?? "") === "" && process.env["TERM"] !== "dumb";

export function bold(text: string): string {
  return isStyled(process.stdout) ? `\x1b[1m${text}\x1b[22m` : text;
}

function red(text: string): string {
  return isStyled(process.stderr) ? `\x1b[31m${text}\x1b[39m` : text;
}

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly next: string;
  readonly exit: number;
}

/** Prints the cause and the next step, and returns the exit code. */
export function printFailure(error: unknown, json: boolean): number {
  const { exit, ...failure } = describeFailure(error);
  if (json) process.stderr.write(`${JSON.stringify({ error: failure })}\n`);
  else note(`${red("lamina:")} ${failure.message}; ${failure.next} (${failure.code})`);
  return exit;
}

function describeFailure(error: unknown): Failure {
  if (error instanceof LaminaError) {
    const { message, next, exitCode } = error;
    return { code: `LAMINA_${error.code}`, message, next, exit: exitCode };
  }
  if (error instanceof ApiError) {
    const { code, message, next } = error;
    return { code, message, next, exit: exitOf(code) };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const next = "please report it with what you did";
  return {
    code: "LAMINA_INTERNAL",
    message: `this should not have happened: ${stack}`,
    next,
    exit: EXIT_FAILED,
  };
}

/** The exit code that a code of the server's answer stands for. */
function exitOf(code: string): number {
  const known = code.replace(/^LAMINA_/, "");
  return known in CATALOGUE ? CATALOGUE[known as ErrorCode].exit : EXIT_FAILED;
}
