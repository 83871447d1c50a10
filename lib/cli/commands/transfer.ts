/** lamina volume export and import. */
import type { Argv } from "yargs";
import type { GlobalArguments } from "../arguments.js";
import type { Run } from "./command.js";

export function registerTransfer(_yargs: Argv<GlobalArguments>, _run: Run): void {}
