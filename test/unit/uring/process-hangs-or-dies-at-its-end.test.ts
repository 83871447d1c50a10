import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { diskRead, KINDS, ringRefusal } from "./support/engines.js";
import { Program, startWorker } from "./support/run.js";

const refusal = ringRefusal();

for (const kind of KINDS) {
  const options = kind === "ring" && refusal !== null ? { skip: refusal } : {};

  t.test(`a process with nothing to do ends by itself (${kind})`, options, async (t) => {
    const program = new Program("idle", kind, [join(t.testdir(), "disk")]);
    t.match(await program.ended, { code: 0, signal: null });
    t.same(program.lines, ["read 4096"]);
  });

  t.test(`a process that listens stays (${kind})`, options, async (t) => {
    const program = new Program("listen", kind, []);
    await program.line("listening");
    const over = await Promise.race([
      program.ended,
      new Promise((resolve) => setTimeout(resolve, 200, "alive")),
    ]);
    t.equal(over, "alive");
    t.equal((await program.kill()).signal, "SIGKILL");
  });

  t.test(`a process with a connection stays (${kind})`, options, async (t) => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("not TCP");
    const program = new Program("connection", kind, [String(address.port)]);
    await program.line("connected");
    const over = await Promise.race([
      program.ended,
      new Promise((resolve) => setTimeout(resolve, 200, "alive")),
    ]);
    t.equal(over, "alive");
    await program.kill();
    server.close();
  });

  t.test(`a timer is waited for (${kind})`, options, async (t) => {
    const program = new Program("timer", kind, []);
    t.match(await program.ended, { code: 0 });
    t.same(program.lines, ["fired"]);
  });

  t.test(`exit with requests in flight is clean (${kind})`, options, async (t) => {
    const directory = t.testdir();
    for (let round = 0; round < 3; round++) {
      const ended = await new Program("exit", kind, [join(directory, `disk${round}`)]).ended;
      t.match(ended, { code: 7, signal: null, stderr: "" });
    }
  });

  t.test(`ten threads are terminated with requests in flight (${kind})`, options, async (t) => {
    const directory = t.testdir();
    const workers = Array.from({ length: 10 }, (_, i) =>
      startWorker("busy", kind, [join(directory, `disk${i}`)]),
    );
    await Promise.all(workers.map((worker) => once(worker, "message")));
    await Promise.all(workers.map((worker) => worker.terminate()));
    // Their memory is gone and ours is not: the engine of this thread still works.
    const engine = openEngine({ kind, poolBytes: MIB });
    const { disk } = await engine.openDisk({ path: join(directory, "disk0") });
    t.equal(
      await diskRead(disk, 0, engine.pool.allocate(MIB), MIB),
      MIB,
      "and the lock of a terminated thread is free",
    );
    disk.close();
    await engine.close();
  });
}

t.test("memory of a closed engine cannot be reached", async (t) => {
  for (let round = 0; round < 40; round++) {
    const engine = openEngine({ kind: "auto", poolBytes: 16 * MIB });
    t.equal(engine.pool.bytes.length, 16 * MIB);
    await engine.close();
    t.equal(engine.pool.bytes.length, 0);
  }
});
