/** Sockets that are handed over: libnbd's [ COMMAND ], and systemd's own tool where it is installed. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { check, Program, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch } from "./support/scratch.js";
import { freePort, LAMINA, LaminaServer } from "./support/server.js";
import { until } from "./support/until.js";

const SIZE = 4 * 2 ** 20;

/** A stopped store with the volume "v". */
async function prepared(t: Test): Promise<LaminaServer> {
  const data = mkdtempSync(join(tmpdir(), "lamina-"));
  t.teardown(() => removeScratch(data));
  const server = new LaminaServer({ data, capacity: "1G", args: ["--redis", "none"] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("v", "4M");
  await server.stop();
  return server;
}

const serveArgs = (server: LaminaServer): string[] => [
  ...[LAMINA, "serve", "--data", server.data, "--admin", "127.0.0.1:0", "--redis", "none"],
];

t.test("nbdinfo [ lamina serve ]", requires({ commands: ["nbdinfo"], lamina: true }), async (t) => {
  const server = await prepared(t);
  const text = await check("nbdinfo", ["--json", "--", "[", ...serveArgs(server), "]"]);
  const { exports } = JSON.parse(text) as { exports: readonly object[] };
  t.match(exports, [{ "export-size": SIZE }], "its output is nbdinfo's alone");
  const { stdout, code } = await server.fsck();
  t.equal(code, 0, stdout);
});

const WITH_REDIS = requires({ commands: ["nbdinfo", "redis-server"], lamina: true });

t.test("a private redis-server does not take the socket", WITH_REDIS, async (t) => {
  const server = await prepared(t);
  const args = [LAMINA, "serve", "--data", server.data, "--admin", "127.0.0.1:0"];
  t.equal((await check("nbdinfo", ["--size", "--", "[", ...args, "]"])).trim(), String(SIZE));
});

t.test(
  "systemd-socket-activate: only what was handed over is listened on, and --listen on top",
  requires({ commands: ["systemd-socket-activate", "nbdinfo"], lamina: true }),
  async (t) => {
    const server = await prepared(t);
    const [given, further] = [await freePort(), await freePort()];
    const activate = ["-l", `127.0.0.1:${given}`, "--", ...serveArgs(server)];
    const listen = ["--listen", `127.0.0.1:${further}`];
    const program = new Program("systemd-socket-activate", [...activate, ...listen]);
    t.teardown(() => program.end("SIGKILL"));
    await until("it listens", async () => {
      const { code } = await run("nbdinfo", ["--size", `nbd://127.0.0.1:${given}/v`]);
      return code === 0;
    });
    t.equal((await check("nbdinfo", ["--size", `nbd://127.0.0.1:${further}/v`])).trim(), String(SIZE));
    t.equal(program.stdout.trim(), `lamina ready nbd://127.0.0.1:${further}`);
    const { listeners } = (await server.json("status")) as { listeners: readonly string[] };
    t.same(listeners, [`nbd://127.0.0.1:${further}`, `nbd://127.0.0.1:${given}`]);
    t.equal((await program.end("SIGTERM")).code, 0);
  },
);

t.test(
  "an inherited socket beyond loopback is refused like any other",
  requires({ commands: ["systemd-socket-activate"], lamina: true }),
  async (t) => {
    const server = await prepared(t);
    const port = await freePort();
    const activate = ["-l", `0.0.0.0:${port}`, "--", ...serveArgs(server)];
    const program = new Program("systemd-socket-activate", activate);
    t.teardown(() => program.end("SIGKILL"));
    // The first connection starts the program.
    await until("it has ended", async () => {
      if (program.isRunning) await run("nbdinfo", ["--size", `nbd://127.0.0.1:${port}/v`]);
      return !program.isRunning;
    });
    const { code, stderr } = await program.ended;
    t.equal(code, 64);
    t.match(stderr, /LISTEN_INSECURE/);
  },
);
