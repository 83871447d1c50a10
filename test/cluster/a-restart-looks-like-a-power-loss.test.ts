/**
 * A service manager starts each life of a service in a mount namespace of its own, where the same file system is
 * mounted under another number. What was written is in the page cache all the same: no power was lost.
 */
import t from "tap";
import { Program } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { LAMINA } from "../interop/support/server.js";

const LOST = /lost power/;
const COMMAND = ["--mount", LAMINA, "serve", "--capacity", "64M", "--listen", "127.0.0.1:0"];

/** Starts, is killed, and says on its standard error what it found. */
async function oneLife(data: string): Promise<string> {
  const server = new Program("unshare", [...COMMAND, "--admin", "127.0.0.1:0", "--data", data]);
  await server.printed(/^lamina ready /m);
  const { stderr } = await server.end("SIGKILL");
  return stderr;
}

// Others, such as overlayfs, are known by their mounts only.
const FILE_SYSTEM = "/dev/shm";
t.test(
  "a server that is killed and started again in another mount namespace",
  requires({ root: true, lamina: true, commands: ["unshare"], paths: [FILE_SYSTEM] }),
  async (t) => {
    const data = scratchDirectory(FILE_SYSTEM);
    t.teardown(() => removeScratch(data));
    t.notMatch(await oneLife(data), LOST, "a new store");
    t.notMatch(await oneLife(data), LOST, "after kill -9");
    t.notMatch(await oneLife(data), LOST, "and again");
  },
);
