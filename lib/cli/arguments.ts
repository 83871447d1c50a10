/** Options that commands share. */
import type { Argv } from "yargs";
import { AdminClient } from "./client.js";
import { DATA_DEFAULT } from "./serve/options.js";

/** Every command has these. */
export interface GlobalArguments {
  readonly json: boolean;
}

export interface TargetArguments extends GlobalArguments {
  readonly data: string;
  readonly server: string | undefined;
}

export function withData<T>(yargs: Argv<T>): Argv<T & { data: string }> {
  return yargs.option("data", {
    describe: "data directory of the server",
    type: "string",
    requiresArg: true,
    default: DATA_DEFAULT,
  });
}

export function withTarget<T>(yargs: Argv<T>): Argv<T & { data: string; server: string | undefined }> {
  return withData(yargs).option("server", {
    describe: "admin address of a server elsewhere, http://HOST:PORT; its token in LAMINA_TOKEN",
    type: "string",
    requiresArg: true,
  });
}

export function clientOf(args: TargetArguments): AdminClient {
  return new AdminClient({ data: args.data, server: args.server });
}
