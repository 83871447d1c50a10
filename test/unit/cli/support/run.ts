/** Commands of the CLI in this process, with what they print. */
import { main } from "../../../../lib/cli/main.js";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

type Write = typeof process.stdout.write;

/** One at a time: standard output is the process's. */
export async function lamina(...args: string[]): Promise<Outcome> {
  const printed = { stdout: "", stderr: "" };
  const streams = ["stdout", "stderr"] as const;
  const before = streams.map((name) => process[name].write);
  for (const name of streams) {
    process[name].write = ((chunk: string | Uint8Array): boolean => {
      printed[name] += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8");
      return true;
    }) as Write;
  }
  const log = console.log;
  const error = console.error;
  console.log = (text: string) => process.stdout.write(`${text}\n`);
  console.error = (text: string) => process.stderr.write(`${text}\n`);
  try {
    return { code: await main(args), ...printed };
  } finally {
    for (const [i, name] of streams.entries()) process[name].write = before[i]!;
    console.log = log;
    console.error = error;
  }
}
