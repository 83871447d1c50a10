/** Replacements that are refused or fail for reasons outside both servers: what is said, and what is left. */
import { mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { NbdClient } from "../../interop/support/nbd-client.js";
import { Program, run } from "../../interop/support/process.js";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";
import { LAMINA, LaminaServer } from "../../interop/support/server.js";
import { until } from "../../interop/support/until.js";

const VOLUME = "v";
const MIB = 1 << 20;
const PSK = "alice:1f2e3d4c5b6a79880123456789abcdef0123456789abcdef0123456789abcdef\n";
const SMALL = ["--redis", "none", "--pool", "16M"];

t.test("the old server has ended, and the new one cannot serve after all", async (t) => {
  const keys = scratchDirectory();
  t.teardown(() => removeScratch(keys));
  writeFileSync(join(keys, "keys.psk"), PSK, { mode: 0o600 });
  const tls = [...SMALL, "--tls", "allow", "--tls-dir", keys];
  const server = new LaminaServer({ capacity: "256M", args: tls });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  t.teardown(() => client.destroy());
  const bytes = Buffer.alloc(MIB, 7);
  for (let at = 0; at < 32 * MIB; at += MIB) await client.write(at, bytes);
  // Replies that nobody takes keep the old one here until the file is gone.
  client.pauseReading();
  for (let at = 0; at < 32 * MIB; at += MIB) client.read(at, MIB).catch(() => {});
  const old = server.pid;
  const address = `${server.host}:${server.port}`;
  const next = new Program(LAMINA, [
    ...["serve", "--replace", "--data", server.data, "--listen", address, "--admin", "127.0.0.1:0", ...tls],
  ]);
  t.teardown(async () => next.end("SIGKILL"));
  await until("there is no way back", () => Promise.resolve(/finishes what is in flight/.test(next.stderr)));
  t.ok(server.program.isRunning, "the old one still has replies to give");
  rmSync(join(keys, "keys.psk"));
  client.destroy();
  const { code, stderr } = await next.ended;
  t.equal(code, 1);
  t.match(stderr, `process ${old} has ended for this one, which cannot serve: `);
  t.match(stderr, /keys\.psk.*; nothing acknowledged is lost \(LAMINA_REPLACE_FAILED\)/);
  t.equal((await server.program.ended).code, 0, "the old one ended in order");

  writeFileSync(join(keys, "keys.psk"), PSK, { mode: 0o600 });
  await server.start();
  const again = await NbdClient.connect(server.host, server.port, VOLUME);
  t.ok((await again.read(31 * MIB, MIB)).equals(bytes), "the address is free, and nothing is lost");
  await again.close();
  await server.stop();
  t.equal((await server.fsck()).code, 0);
});

/** A control group of its own below this process', in any hierarchy; or why there is none. */
function controlGroup(t: Test): { procs: string } | string {
  const reasons: string[] = [];
  for (const line of readFileSync("/proc/self/cgroup", "utf8").trim().split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line)!;
    const mounts = controllers === "" ? ["", "/unified"] : [`/${controllers!.replace("name=", "")}`];
    for (const mount of mounts) {
      const group = join("/sys/fs/cgroup", mount, path!, `lamina-test-${process.pid}`);
      try {
        mkdirSync(group);
        // Only in a hierarchy of control groups does a new directory have this file.
        readFileSync(join(group, "cgroup.procs"));
      } catch (error) {
        reasons.push(String(error));
        continue;
      }
      t.teardown(() => rmdirSync(group));
      return { procs: join(group, "cgroup.procs") };
    }
  }
  return `no control group can be made here: ${reasons.join("; ")}`;
}

t.test("under a service manager, a process outside the unit", async (t) => {
  const group = controlGroup(t);
  if (typeof group === "string") {
    t.comment(`skipped: ${group}`);
    t.pass(group, { skip: group });
    return;
  }
  const data = scratchDirectory();
  t.teardown(() => removeScratch(data));
  const listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  const args = ["serve", "--data", data, "--capacity", "256M", ...SMALL, ...listen];
  const env = { NOTIFY_SOCKET: "/nonexistent/notify" };
  const server = new Program(LAMINA, args, { env });
  t.teardown(async () => server.end("SIGKILL"));
  await server.printed(/lamina ready/);
  const command = ["-c", 'echo $$ >"$0" && exec "$@"', group.procs, LAMINA, ...args, "--replace"];
  const stranger = await run("/bin/sh", command);
  t.equal(stranger.code, 1);
  t.match(stranger.stderr, /unit of a service manager, to which process \d+ does not belong/);
  t.match(stranger.stderr, "systemctl kill --kill-whom=main --signal=USR2 UNIT (LAMINA_REPLACE_REFUSED)");
  t.ok(server.isRunning, "it goes on");
  const member = new Program(LAMINA, [...args, "--replace"]);
  t.teardown(async () => member.end("SIGKILL"));
  await member.printed(/lamina ready/);
  t.equal((await server.ended).code, 0, "one of its own unit takes over");
  t.equal((await member.end("SIGTERM")).code, 0);
});
