/** What happens to the running server when another one is to take over: nothing, unless that one can. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Errno } from "../../../lib/uring/abi.js";
import { addon } from "../../../lib/uring/addon.js";
import { NbdClient } from "../../interop/support/nbd-client.js";
import { check, Program, run } from "../../interop/support/process.js";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";
import { freePort, LAMINA, LaminaServer } from "../../interop/support/server.js";
import { until } from "../../interop/support/until.js";

const VOLUME = "v";
const PSK = "alice:1f2e3d4c5b6a79880123456789abcdef0123456789abcdef0123456789abcdef\n";

function folder(t: Test): string {
  const path = scratchDirectory();
  t.teardown(() => removeScratch(path));
  return path;
}

async function serving(t: Test, args: readonly string[]): Promise<LaminaServer> {
  const server = new LaminaServer({ capacity: "256M", args: ["--redis", "none", "--pool", "16M", ...args] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "8M");
  return server;
}

async function pidOf(server: LaminaServer): Promise<number> {
  return ((await server.json("status")) as { pid: number }).pid;
}

t.test("a successor that cannot be prepared leaves everything as it is", async (t) => {
  const place = folder(t);
  const socket = join(place, "nbd.sock");
  const server = await serving(t, ["--listen", `unix:${socket}`]);
  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  t.teardown(() => client.destroy());
  await client.write(0, Buffer.alloc(4096, 7));

  const busy = createServer();
  await new Promise<void>((resolve) => busy.listen(0, "127.0.0.1", resolve));
  t.teardown(() => busy.close());
  const taken = (busy.address() as { port: number }).port;
  const keys = join(place, "keys");
  mkdirSync(keys);
  writeFileSync(join(keys, "keys.psk"), PSK, { mode: 0o600 });
  const other = join(place, "other-device");
  writeFileSync(other, Buffer.alloc(1 << 20));
  const common = ["--redis", "none", "--pool", "16M", "--admin", "127.0.0.1:0"];
  const own = ["--listen", `127.0.0.1:${server.port}`, "--listen", `unix:${socket}`];
  const attempts: readonly (readonly [string, readonly string[]])[] = [
    ["LAMINA_USAGE", [...own, "--io-engine", "steam"]],
    ["LAMINA_TLS_FILES", [...own, "--tls", "allow", "--tls-dir", join(place, "nothing")]],
    ["LAMINA_LISTEN_REFUSED", [...own, "--listen", `127.0.0.1:${taken}`]],
    ["LAMINA_LISTEN_INSECURE", [...own, "--listen", "0.0.0.0:0"]],
    ["LAMINA_REPLACE_REFUSED", [...own, "--device", other]],
    [
      "LAMINA_ACCESS_LIST_MISSING",
      ["--listen", `0.0.0.0:${await freePort()}`, "--tls", "require", "--tls-dir", keys],
    ],
  ];
  for (const [code, args] of attempts) {
    const result = await run(LAMINA, ["serve", "--replace", "--data", server.data, ...common, ...args]);
    t.not(result.code, 0, `${code}: it ends`);
    t.match(result.stderr, new RegExp(`\\(${code}\\)`));
    t.ok((await client.read(0, 4096)).equals(Buffer.alloc(4096, 7)), "on the connection that there was");
    t.equal(await pidOf(server), server.pid, "the same server");
  }
  t.equal(
    (await check("nbdinfo", ["--size", `nbd+unix:///${VOLUME}?socket=${socket}`])).trim(),
    String(8 << 20),
  );
  t.notOk(
    readdirSync(server.data).some((name) => name.startsWith("replace.")),
    "nothing is left behind",
  );
});

// Under a service manager it is started in another way.
for (const notifySocket of [undefined, "/nonexistent/notify"]) {
  const where = notifySocket === undefined ? "" : ", under a service manager";
  t.test(`SIGUSR2 with a program that does not start any more${where}`, async (t) => {
    const place = folder(t);
    const config = join(place, "serve.json");
    const good = JSON.stringify({ pool: "16M" });
    writeFileSync(config, good);
    const args = ["serve", "--data", join(place, "data"), "--capacity", "256M", "--redis", "none"];
    const listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", config];
    const env = notifySocket === undefined ? {} : { NOTIFY_SOCKET: notifySocket };
    const server = new Program(LAMINA, [...args, ...listen], { env });
    t.teardown(async () => server.end("SIGKILL"));
    await server.printed(/lamina ready/);
    const inPlace = ["--data", join(place, "data")];
    const serving = async (): Promise<number> =>
      (JSON.parse(await check(LAMINA, ["status", ...inPlace, "--json"])) as { pid: number }).pid;
    writeFileSync(config, JSON.stringify({ pool: "much" }));
    process.kill(server.pid, "SIGUSR2");
    await until("it is said", () => Promise.resolve(/goes on serving/.test(server.stderr)));
    t.match(server.stderr, /LAMINA_SIZE_INVALID/);
    t.equal(await serving(), server.pid);
    writeFileSync(config, good);
    process.kill(server.pid, "SIGUSR2");
    await until("another one serves", async () => (await serving()) !== server.pid);
    await check(LAMINA, ["stop", ...inPlace]);
    t.equal((await server.ended).code, 0, "the first one has ended in order, the second has its output");
  });
}

t.test("what is not asked for any more is closed, what is new is opened", async (t) => {
  const place = folder(t);
  const [first, second] = [join(place, "first.sock"), join(place, "second.sock")];
  const server = await serving(t, ["--listen", `unix:${first}`]);
  const args = [
    "--listen",
    `127.0.0.1:${server.port}`,
    "--listen",
    `unix:${second}`,
    "--admin",
    "127.0.0.1:0",
  ];
  const more = ["--redis", "none", "--pool", "16M"];
  const next = new Program(LAMINA, ["serve", "--replace", "--data", server.data, ...args, ...more]);
  t.teardown(async () => next.end("SIGKILL"));
  await next.printed(/second\.sock$/m);
  t.equal((await server.program.ended).code, 0);
  t.notOk(existsSync(first));
  t.equal(
    (await check("nbdinfo", ["--size", `nbd+unix:///${VOLUME}?socket=${second}`])).trim(),
    String(8 << 20),
  );
  t.match(next.stdout, `lamina ready nbd://127.0.0.1:${server.port}\n`);
  t.equal((await next.end("SIGTERM")).code, 0);
  t.notOk(existsSync(second), "a socket that was handed over is removed at the end, too");
  t.notOk(existsSync(join(server.data, "admin.sock")));
});

t.test("--replace without a server to replace is a start", async (t) => {
  const server = await serving(t, []);
  await server.stop();
  const data = [
    "--data",
    server.data,
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--redis",
    "none",
  ];
  const next = new Program(LAMINA, ["serve", "--replace", ...data]);
  t.teardown(async () => next.end("SIGKILL"));
  await next.printed(/lamina ready/);
  t.equal((await next.end("SIGTERM")).code, 0);
});

t.test("the sockets are for processes of this machine", async (t) => {
  const port = await freePort();
  const server = await serving(t, []);
  await server.stop();
  const data = ["--data", server.data, "--listen", "127.0.0.1:0", "--admin", `127.0.0.1:${port}`];
  const next = new Program(LAMINA, ["serve", ...data, "--redis", "none"]);
  t.teardown(async () => next.end("SIGKILL"));
  await next.printed(/lamina ready/);
  const token = readFileSync(join(server.data, "admin.token"), "utf8").trim();
  for (const path of ["/v1/replacement", "/v1/replacement/commit"]) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ pid: process.pid }),
    });
    t.equal(answer.status, 403);
    t.match(await answer.text(), /LAMINA_LOCAL_ONLY/);
  }
});

t.test("a service manager hears of the new process, and of no end", async (t) => {
  const box = join(folder(t), "notify");
  const fd = addon().datagramOpen(box);
  t.ok(fd >= 0);
  t.teardown(() => addon().fileClose(fd));
  const heard: string[] = [];
  const listen = (): void => {
    for (;;) {
      const mail = addon().datagramReceive(fd);
      if (typeof mail === "number") {
        if (mail !== Errno.EAGAIN) throw new Error(`receiving: ${mail}`);
        return;
      }
      heard.push(mail.text);
    }
  };
  const hears = (text: string, times = 1): Promise<void> =>
    until(text, () => {
      listen();
      return heard.filter((line) => line === text).length === times;
    });
  const data = ["--data", join(folder(t), "data"), "--capacity", "256M", "--redis", "none"];
  const args = ["serve", ...data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  const server = new Program(LAMINA, args, { env: { NOTIFY_SOCKET: box } });
  t.teardown(async () => server.end("SIGKILL"));
  await hears("READY=1");
  process.kill(server.pid, "SIGUSR2");
  await hears("READY=1", 2);
  const status = await check(LAMINA, ["status", "--data", data[1]!, "--json"]);
  const { pid } = JSON.parse(status) as { pid: number };
  t.not(pid, server.pid);
  t.same(heard, ["READY=1", `MAINPID=${pid}`, "READY=1"]);
  await check(LAMINA, ["stop", "--data", data[1]!]);
  await hears("STOPPING=1");
});
