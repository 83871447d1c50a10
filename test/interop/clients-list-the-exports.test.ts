import t from "tap";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { startServer } from "./support/server.js";

t.test(
  "every client lists every volume",
  requires({ commands: ["nbdinfo", "nbd-client", "qemu-nbd"] }),
  async (t) => {
    const server = await startServer();
    t.teardown(async () => server.dispose());
    const names = ["alpha", "beta.2", `long-${"x".repeat(57)}`];
    for (const name of names) await server.createVolume(name, "16M");

    const text = await check("nbdinfo", ["--list", "--json", server.uri("")]);
    const listed = JSON.parse(text) as { readonly exports: readonly { readonly "export-name": string }[] };
    t.same(listed.exports.map((each) => each["export-name"]).sort(), names, "nbdinfo --list");

    const client = await check("nbd-client", ["-l", server.host, String(server.port)]);
    for (const name of names) t.match(client, name, `nbd-client -l shows ${name}`);

    const qemu = await check("qemu-nbd", ["-L", "-b", server.host, "-p", String(server.port)]);
    t.match(qemu, /exports available: 3/);
    for (const name of names) t.match(qemu, `export: '${name}'`, `qemu-nbd -L shows ${name}`);
  },
);
