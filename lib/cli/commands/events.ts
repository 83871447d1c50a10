/** lamina events: what happened, and with --follow what happens. */
import type { EventView } from "../../admin/index.js";
import { LaminaError } from "../../core/errors.js";
import { clientOf, withTarget } from "../arguments.js";
import { print, printJson } from "../output.js";
import type { Command } from "./command.js";
import { parseCount } from "./volume-names.js";

const LIMIT_MAX = 1000;

export const events: Command = {
  register: (yargs, run) =>
    yargs.command(
      "events",
      "show what happened",
      (y) =>
        withTarget(y)
          .option("follow", {
            alias: "f",
            describe: "go on showing what happens",
            type: "boolean",
            default: false,
          })
          .option("limit", {
            describe: "events to show, at most 1000",
            type: "string",
            default: "100",
            requiresArg: true,
          })
          .example("lamina events --follow --json", "one JSON object per line, as it happens"),
      run(async (args) => {
        const limit = parseCount(args.limit, "--limit") ?? LIMIT_MAX;
        if (limit > LIMIT_MAX) {
          throw new LaminaError("USAGE", {
            what: `--limit ${limit} is over ${LIMIT_MAX}`,
            help: "lamina events --help",
          });
        }
        const client = clientOf(args);
        const answer = await client.ask<{ events: readonly EventView[] }>("GET", `/v1/events?limit=${limit}`);
        if (args.json && !args.follow) {
          printJson(answer);
          return 0;
        }
        for (const event of answer.events) show(event, args.json);
        if (!args.follow) return 0;
        const last = answer.events.at(-1)?.id ?? null;
        for await (const event of client.events(last)) show(event as EventView, args.json);
        throw new LaminaError("SERVER_NOT_RUNNING", { data: client.name });
      }),
    ),
};

function show(event: EventView, json: boolean): void {
  print(json ? JSON.stringify(event) : `${event.at}  ${event.kind.padEnd(16)}  ${event.text}`);
}
