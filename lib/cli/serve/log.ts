/** The server's log on standard error: JSON lines for machines, one readable line each on a terminal. */
import { Writable } from "node:stream";
import { type Logger, pino, stdTimeFunctions } from "pino";

const LEVELS: Readonly<Record<string, string>> = {
  "20": "debug",
  "30": "info",
  "40": "warning",
  "50": "error",
  "60": "fatal",
};

export function makeLog(terminal: boolean = process.stderr.isTTY === true): Logger {
  const options = {
    base: { pid: process.pid },
    timestamp: stdTimeFunctions.isoTime,
    level: process.env["LAMINA_LOG"] ?? "info",
  };
  // Written at once: what a dying process had to say must be seen.
  if (!terminal) return pino(options, pino.destination({ fd: 2, sync: true }));
  const readable = new Writable({
    write(line: Buffer, _encoding, done) {
      process.stderr.write(readableLine(line.toString("utf8")));
      done();
    },
  });
  return pino(options, readable);
}

/** "12:03:11 warning: text key=value" */
export function readableLine(line: string): string {
  const { time, level, msg, pid: _, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const clock = String(time).slice(11, 19);
  const fields = Object.entries(rest).map(([key, value]) => ` ${key}=${fieldText(value)}`);
  return `${clock} ${LEVELS[String(level)] ?? level}: ${String(msg)}${fields.join("")}\n`;
}

function fieldText(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const { message, stack } = value as Record<string, unknown>;
  return typeof stack === "string" ? stack : typeof message === "string" ? message : JSON.stringify(value);
}
