/** lamina stop: ends the server of a data directory and waits until it is gone. */
import { setTimeout as sleep } from "node:timers/promises";
import { LaminaError } from "../../core/errors.js";
import { withData } from "../arguments.js";
import { print, printJson } from "../output.js";
import { holderOf } from "../serve/data-directory.js";
import type { Command } from "./command.js";

const POLL_MS = 50;
/** A server that drains slow clients may take long; it is told about after this. */
const WAIT_SECONDS = 120;

export const stop: Command = {
  register: (yargs, run) =>
    yargs.command(
      "stop",
      "stop the server of a data directory, and wait until it has ended",
      (y) =>
        withData(y).example(
          "lamina stop --data /srv/lamina",
          "everything acknowledged is made durable first",
        ),
      run(async (args) => {
        const holder = holderOf(args.data);
        if (holder === null) throw new LaminaError("SERVER_NOT_RUNNING", { data: args.data });
        const { pid } = holder;
        process.kill(pid, "SIGTERM");
        const end = performance.now() + WAIT_SECONDS * 1000;
        // The lock goes with the last thing the process does.
        while (holderOf(args.data)?.pid === pid || isAlive(pid)) {
          if (performance.now() > end) {
            throw new LaminaError("SERVER_STILL_STOPPING", { pid, seconds: WAIT_SECONDS });
          }
          await sleep(POLL_MS);
        }
        if (args.json) printJson({ stopped: pid });
        else print(`stopped process ${pid}`);
        return 0;
      }),
    ),
};

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
