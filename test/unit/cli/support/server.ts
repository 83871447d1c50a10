/** A whole server in this process, in a directory of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { resolveServeOptions, type ServeArguments } from "../../../../lib/cli/serve/options.js";
import { type Server, startServer } from "../../../../lib/cli/serve/server.js";
import { lamina, type Outcome } from "./run.js";

export interface Teardown {
  teardown(fn: () => Promise<void> | void): void;
}

export function scratch(test: Teardown): string {
  const directory = mkdtempSync(join(tmpdir(), "lamina-cli-"));
  test.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const SMALL: ServeArguments = {
  capacity: "160M",
  listen: "127.0.0.1:0",
  admin: "127.0.0.1:0",
  redis: "none",
  pool: "16M",
};

/** Without Redis unless `more` says otherwise. */
export function serve(data: string, more: ServeArguments = {}): Promise<Server> {
  return serveExactly({ ...SMALL, data, ...more });
}

export function serveExactly(options: ServeArguments): Promise<Server> {
  return startServer(resolveServeOptions(options, undefined), pino({ level: "silent" }));
}

export interface Running {
  readonly data: string;
  readonly server: Server;
  run(...args: string[]): Promise<Outcome>;
}

export async function running(test: Teardown): Promise<Running> {
  const data = join(scratch(test), "data");
  const server = await serve(data);
  test.teardown(() => server.close());
  return { data, server, run: (...args) => lamina(...args, "--data", data) };
}
