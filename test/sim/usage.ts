/** Arguments of the simulators' commands: what cannot be meant is told in a sentence, with exit code 64. */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** sysexits.h: EX_USAGE. */
export const EX_USAGE = 64;

/** What was asked cannot be meant. */
export class UsageError extends Error {}

type Options = NonNullable<ParseArgsConfig["options"]>;

type Values<T extends Options> = ReturnType<typeof parseArgs<{ args: string[]; options: T }>>["values"];

/** Values of the options. Throws UsageError. */
export function optionsOf<const T extends Options>(args: readonly string[], options: T): Values<T> {
  try {
    return parseArgs({ args: [...args], options }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** The exit code of `run`; `help` is the command that says what there is. */
export async function toldOfMisuse(
  run: () => number | Promise<number>,
  help: string,
  print: (text: string) => void,
): Promise<number> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    print(`${error.message}\n  next: ${help}`);
    return EX_USAGE;
  }
}
