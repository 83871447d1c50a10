/** A server with one volume for one test, gone when the test ends. */
import type { Test } from "tap";
import { type ServerOptions, startServer, type TestServer } from "./server.js";

export const VOLUME = "v";

export interface Served {
  readonly server: TestServer;
  readonly uri: string;
}

export async function serveVolume(t: Test, size: string, options: ServerOptions = {}): Promise<Served> {
  const server = await startServer(options);
  t.teardown(async () => server.dispose());
  await server.createVolume(VOLUME, size);
  return { server, uri: server.uri(VOLUME) };
}
