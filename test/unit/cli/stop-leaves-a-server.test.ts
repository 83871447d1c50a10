import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { lamina } from "./support/run.js";
import { scratch } from "./support/server.js";

const ROOT = new URL("../../../", import.meta.url).pathname;
const PROGRAM = join(ROOT, "bin", "lamina");
/** Without the test runner's own loader. */
const UNHOOKED = ["-u", "NODE_OPTIONS"];
/** Processes run what is built: from source each would take seconds to start. */
const unbuilt = !existsSync(join(ROOT, "dist", "lib", "cli", "main.js")) && "the program is not built";

interface Process {
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  ready(): Promise<string>;
}

function start(test: Test, data: string, ...more: string[]): Process {
  const fixed = [
    "serve",
    "--data",
    data,
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--pool",
    "16M",
  ];
  const program = [...UNHOOKED, process.execPath, PROGRAM];
  const child = spawn("env", [...program, ...fixed, "--capacity", "160M", ...more], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  test.teardown(() => child.kill("SIGKILL"));
  let printed = "";
  child.stdout?.on("data", (part) => {
    printed += String(part);
  });
  let complaint = "";
  child.stderr?.on("data", (part) => {
    complaint += String(part);
  });
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
  const ready = async (): Promise<string> => {
    for (;;) {
      const match = /^lamina ready (nbd:\/\/\S+)$/m.exec(printed);
      if (match !== null) return match[1]!;
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended: ${complaint}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { child, ended, ready };
}

t.test("stop ends it cleanly and waits until it is gone", { skip: unbuilt }, async (t) => {
  const data = join(scratch(t), "data");
  const server = start(t, data);
  t.match(await server.ready(), /^nbd:\/\/127\.0\.0\.1:\d+$/);
  const stopped = await lamina("stop", "--data", data);
  t.same([stopped.code, stopped.stdout], [0, `stopped process ${server.child.pid}\n`], stopped.stderr);
  t.same(await server.ended, { code: 0, signal: null });
  const left = readdirSync(data);
  for (const name of ["admin.sock", "lamina.pid"]) t.notOk(left.includes(name), `${name} is gone`);
  t.notOk(existsSync(join(data, "redis", "redis.sock")), "the private Redis is gone, too");
  t.equal((await lamina("fsck", "--data", data)).code, 0);
  t.match((await lamina("stop", "--data", data)).stderr, /no server runs/);
});

t.test("killed: the next one starts on what it left", { skip: unbuilt }, async (t) => {
  const data = join(scratch(t), "data");
  const first = start(t, data);
  await first.ready();
  t.equal((await lamina("volume", "create", "v", "--size", "1G", "--data", data)).code, 0);
  first.child.kill("SIGKILL");
  await first.ended;
  t.equal((await lamina("stop", "--data", data)).code, 1, "nobody is there to be stopped");
  const second = start(t, data);
  await second.ready();
  t.match((await lamina("volume", "ls", "--data", data)).stdout, /^v /m);
  second.child.kill("SIGTERM");
  t.same(await second.ended, { code: 0, signal: null });
});

t.test("a second signal ends it at once", { skip: unbuilt }, async (t) => {
  const data = join(scratch(t), "data");
  const server = start(t, data);
  await server.ready();
  server.child.kill("SIGINT");
  await new Promise((resolve) => setTimeout(resolve, 5));
  server.child.kill("SIGINT");
  const { code, signal } = await server.ended;
  t.ok(code === 0 || code === 130, `${code} ${signal}`);
  t.equal((await lamina("fsck", "--data", data)).code, 0);
});

t.test(
  "a file system without room",
  { skip: unbuilt || (process.getuid?.() !== 0 && "mounting needs root") },
  async (t) => {
    const directory = scratch(t);
    const small = join(directory, "small");
    mkdirSync(small);
    const mount = spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", small]);
    if (mount.status !== 0) {
      t.pass("skipped: tmpfs cannot be mounted here", { skip: true });
      return;
    }
    t.teardown(() => {
      spawnSync("umount", [small]);
    });
    const data = join(small, "data");
    const server = start(t, data);
    await t.rejects(server.ready(), { message: /LAMINA_/ });
    t.same(await server.ended, { code: 1, signal: null });
    t.notOk(existsSync(join(data, "store.0")), "no store is left behind");
    t.notOk(existsSync(join(data, "store.0.formatting")));
  },
);
