/** The command line: finds the command, runs it, and ends with its exit code. */
import yargs, { type Argv } from "yargs";
import { LaminaError } from "../core/errors.js";
import type { GlobalArguments } from "./arguments.js";
import { attach, attached, detach } from "./attach.js";
import { cluster } from "./commands/cluster.js";
import type { Command, Run } from "./commands/command.js";
import { format, fsck } from "./commands/device-commands.js";
import { doctor } from "./commands/doctor.js";
import { events } from "./commands/events.js";
import { gateway, node } from "./commands/roles.js";
import { serve } from "./commands/serve.js";
import { status } from "./commands/status.js";
import { stop } from "./commands/stop.js";
import { volume } from "./commands/volume.js";
import { printFailure } from "./output.js";
import { VERSION } from "./version.js";

const COMMANDS: readonly Command[] = [
  serve,
  stop,
  volume,
  status,
  events,
  doctor,
  fsck,
  format,
  attach,
  detach,
  attached,
  cluster,
  node,
  gateway,
];
const WIDTH_MAX = 110;

const both = (text: string) => ({ one: text, other: text });

/** What yargs says in its own terms, in ours. */
const WORDS = {
  "Unknown argument: %s": both("there is no option or argument '%s'"),
  "Unknown command: %s": both("there is no command '%s'"),
  "Missing required argument: %s": both("--%s is missing"),
  "Not enough arguments following: %s": "--%s needs a value",
  "Did you mean %s?": "there is no such command, did you mean '%s'?",
} as unknown as Record<string, string>;

/** Returns the exit code: 0 done, 1 failed, 64 wrong usage. */
export async function main(argv: readonly string[]): Promise<number> {
  process.title = "lamina";
  let code = 0;
  const json = argv.includes("--json");
  const run: Run = (work) => async (args) => {
    code = await work(args as Parameters<typeof work>[0]);
  };
  const parser = makeParser(argv, run);
  try {
    await parser.parseAsync();
    return code;
  } catch (error) {
    return printFailure(error, json);
  }
}

function makeParser(argv: readonly string[], run: Run): Argv<GlobalArguments> {
  const base: Argv<GlobalArguments> = yargs([...argv])
    .scriptName("lamina")
    .usage("$0 COMMAND\n\nA network block store: thin, checksummed volumes over NBD.")
    .option("json", { describe: "print JSON", type: "boolean", default: false })
    // A value stays the text it was given as.
    .parserConfiguration({
      "parse-numbers": false,
      "greedy-arrays": false,
    })
    .locale("en")
    .updateStrings(WORDS)
    .wrap(Math.min(WIDTH_MAX, process.stdout.columns ?? WIDTH_MAX))
    .version(VERSION)
    .middleware(refuseRepeated, true)
    .help()
    .strict()
    .recommendCommands()
    .demandCommand(1, "say what to do")
    .completion("completion", "print a completion script for bash or zsh")
    .example("lamina serve", "run a server on this machine")
    .example("lamina volume create disk1 --size 10G", "create a volume")
    .epilogue("Data and defaults: docs/operator.md. Errors: docs/errors.md.")
    .exitProcess(false)
    .fail((message: string | null, error: Error | undefined) => {
      if (error !== undefined && error !== null && error.name !== "YError") throw error;
      const help = `${commandOf(argv)} --help`;
      throw new LaminaError("USAGE", {
        what: oneSentence(message ?? error?.message ?? "the command is not understood"),
        help,
      });
    });
  return COMMANDS.reduce((parser, command) => command.register(parser, run), base);
}

/** Options that may be given several times. */
const REPEATABLE = new Set(["_", "listen", "allow", "address"]);

/** Which of two values was meant cannot be known. */
function refuseRepeated(args: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(args)) {
    if (!Array.isArray(value) || REPEATABLE.has(name)) continue;
    throw new LaminaError("USAGE", { what: `--${name} is given more than once`, help: "lamina --help" });
  }
}

/** yargs puts lists on lines of their own. */
function oneSentence(message: string): string {
  if (message.startsWith("Not enough non-option arguments")) return "an argument is missing";
  const text = message.replace(/\s*\n\s*/g, " ").trim();
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** "lamina volume create" out of what was typed, for a hint. */
function commandOf(argv: readonly string[]): string {
  const words: string[] = [];
  for (const word of argv) {
    if (!/^[a-z]+$/.test(word) || words.length === 2) break;
    words.push(word);
  }
  const known = words[0] === "volume" ? words : words.slice(0, 1);
  return ["lamina", ...known].join(" ");
}
