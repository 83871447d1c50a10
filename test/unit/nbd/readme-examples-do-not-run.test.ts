// The two programs of the README, as they stand there, talking to each other.
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";

const README = new URL("../../../lib/nbd/README.md", import.meta.url);

t.test("the README's client reads from the README's server", async (t) => {
  const blocks = [...readFileSync(README, "utf8").matchAll(/```js\n([\s\S]*?)```/g)].map(
    (match) => match[1]!,
  );
  t.equal(blocks.length, 2);
  const directory = t.testdir();
  const load = async (name: string, source: string): Promise<Record<string, unknown>> => {
    const file = join(directory, name);
    writeFileSync(file, source);
    return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  };
  // Port 0: the suite takes no fixed port.
  const { server } = (await load("server.mjs", blocks[0]!.replace("10809", "0"))) as { server: Server };
  const { readStart } = (await load("client.mjs", blocks[1]!)) as {
    readStart: (port: number, name: string, length: number) => Promise<Buffer>;
  };
  if (!server.listening) await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  t.same(await readStart(port, "ram", 4096), Buffer.alloc(4096));
  t.same(await readStart(port, "", 1), Buffer.alloc(1));
  await t.rejects(readStart(port, "nosuch", 512), { message: /NBD_REP_ERR_UNKNOWN/ });
  await t.rejects(readStart(port, "ram", 2 << 20), {
    message: /NBD_EINVAL: the range ends beyond the export/,
  });
  server.close();
});
