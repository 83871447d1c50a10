import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import t from "tap";
import { findRedisServer, PrivateRedis, socketPath } from "../../../lib/catalog/index.js";
import { LaminaError } from "../../../lib/core/errors.js";

async function until(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 400; tries++) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return false;
}

/** A zombie that nobody has reaped is as dead as one can be. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function answers(path: string): Promise<boolean> {
  const client = new Redis({ path, lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
  client.on("error", () => {});
  try {
    await client.connect();
    return (await client.ping()) === "PONG";
  } catch {
    return false;
  } finally {
    client.disconnect();
  }
}

function temporary(test: { teardown(fn: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), "lamina-private-"));
  test.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

t.test("it runs, is restarted when it dies, and is stopped with us", async (t) => {
  const directory = join(temporary(t), "redis");
  const reasons: string[] = [];
  const redis = new PrivateRedis(directory, { restarted: (reason) => reasons.push(reason) });
  await redis.start();
  t.ok(await until(() => answers(redis.socketPath)), "answers");
  const first = redis.pid!;
  process.kill(first, "SIGKILL");
  t.ok(await until(() => redis.pid !== null && redis.pid !== first), "started again");
  t.ok(await until(() => answers(redis.socketPath)), "answers again");
  t.match(reasons[0], /signal SIGKILL/);
  const second = redis.pid!;
  await redis.stop();
  t.notOk(isAlive(second), "gone");
  t.equal(reasons.length, 1);
});

t.test("a data directory with a long path", async (t) => {
  const directory = join(temporary(t), "d".repeat(120), "redis");
  mkdirSync(directory, { recursive: true });
  const redis = new PrivateRedis(directory, { restarted: () => {} });
  await redis.start();
  t.ok(await until(() => answers(redis.socketPath)), "answers");
  await redis.stop();
  const path = socketPath(directory, "x.sock");
  t.ok(path.short.length < 107);
  path.release();
  path.release();
});

t.test("data that it cannot read is put aside", async (t) => {
  const directory = join(temporary(t), "redis");
  mkdirSync(join(directory, "appendonlydir"), { recursive: true });
  writeFileSync(join(directory, "appendonlydir", "appendonly.aof.manifest"), "nonsense\n");
  const redis = new PrivateRedis(directory, { restarted: () => {} });
  t.teardown(() => redis.stop());
  await redis.start();
  t.ok(await until(() => answers(redis.socketPath)), "answers");
  t.ok(existsSync(join(directory, "appendonlydir.bad")));
});

t.test("our process is killed", async (t) => {
  const directory = join(temporary(t), "redis");
  const pidFile = join(directory, "redis.pid");
  const holder = new URL("./support/hold-private-redis.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [...process.execArgv, holder, directory], { stdio: "ignore" });
  t.ok(await until(() => existsSync(pidFile) && readFileSync(pidFile, "utf8").trim() !== ""), "runs");
  const pid = Number(readFileSync(pidFile, "utf8"));
  t.ok(isAlive(pid));
  child.kill("SIGKILL");
  t.ok(await until(() => !isAlive(pid)), "its redis-server ends too");
});

t.test("only its tools are installed", async (t) => {
  const directory = temporary(t);
  const tools = join(directory, "bin");
  mkdirSync(tools);
  const { path: installed } = findRedisServer();
  symlinkSync(realpathSync(installed), join(tools, "redis-check-aof"));
  for (const name of ["cut", "sleep"]) symlinkSync(`/usr/bin/${name}`, join(tools, name));
  const path = process.env["PATH"];
  process.env["PATH"] = tools;
  t.teardown(() => {
    process.env["PATH"] = path;
  });
  const redis = new PrivateRedis(join(directory, "redis"), { restarted: () => {} });
  await redis.start();
  t.ok(await until(() => answers(redis.socketPath)), "the same program by another name");
  await redis.stop();
});

t.test("our process is killed while it starts one", async (t) => {
  const directory = join(temporary(t), "redis");
  const holder = new URL("./support/hold-private-redis.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [...process.execArgv, holder, directory], { stdio: "ignore" });
  t.ok(await until(() => existsSync(directory)), "begun");
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  const holds = (pid: string): boolean => {
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(directory);
    } catch {
      return false;
    }
  };
  t.ok(
    await until(() => !readdirSync("/proc").some((name) => /^\d+$/.test(name) && holds(name))),
    "nothing is left",
  );
});

t.test("one that is left over is ended by the next", async (t) => {
  const directory = join(temporary(t), "redis");
  mkdirSync(directory);
  const { path, argv0 } = findRedisServer();
  const options = ["--port", "0", "--unixsocket", "redis.sock", "--pidfile", "redis.pid", "--save", ""];
  const left = spawn(path, options, { argv0, cwd: directory, stdio: "ignore", detached: true });
  t.ok(await until(() => answers(join(directory, "redis.sock"))), "it runs");
  const redis = new PrivateRedis(directory, { restarted: () => {} });
  t.teardown(() => redis.stop());
  await redis.start();
  t.ok(await until(() => left.exitCode !== null || left.signalCode !== null), "ended");
  t.ok(await until(() => answers(redis.socketPath)), "the new one answers");
});

t.test("a pid file that names a process of somebody else", async (t) => {
  const directory = join(temporary(t), "redis");
  mkdirSync(directory);
  const other = spawn("sleep", ["60"], { cwd: directory, stdio: "ignore" });
  t.teardown(() => other.kill("SIGKILL"));
  writeFileSync(join(directory, "redis.pid"), `${other.pid}\n`);
  const redis = new PrivateRedis(directory, { restarted: () => {} });
  await redis.start();
  await redis.stop();
  t.ok(isAlive(other.pid!), "is left alone");
});

t.test("finding the program", async (t) => {
  const directory = temporary(t);
  writeFileSync(join(directory, "redis-server"), "#!/bin/sh\n");
  t.throws(() => findRedisServer(directory), "not one that cannot be run");
  chmodSync(join(directory, "redis-server"), 0o755);
  t.equal(findRedisServer(directory).path, join(directory, "redis-server"));
  t.throws(() => findRedisServer("/nonexistent"), new LaminaError("REDIS_SERVER_MISSING"));
});
