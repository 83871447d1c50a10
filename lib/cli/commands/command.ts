/** What a command is to the parser. */
import type { ArgumentsCamelCase, Argv } from "yargs";
import type { GlobalArguments } from "../arguments.js";

/**
 * Wraps a command's work: its exit code is the program's, what it throws is printed as a failure. Handlers
 * must end up here, so that nothing but main decides how the process ends.
 */
export type Run = <T>(
  work: (args: ArgumentsCamelCase<T & GlobalArguments>) => Promise<number>,
) => (args: ArgumentsCamelCase<T>) => Promise<void>;

export interface Command {
  register(yargs: Argv<GlobalArguments>, run: Run): Argv<GlobalArguments>;
}
