/** Sockets that one process hands to another: none is lost, none is left open, and no client is turned away. */
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { MIB } from "../../../lib/core/limits.js";
import type { ByteStream } from "../../../lib/core/stream.js";
import { addon } from "../../../lib/uring/addon.js";
import type { ListenAddress } from "../../../lib/uring/api.js";
import { DescriptorBox, mailDescriptors } from "../../../lib/uring/descriptor-mail.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { closeListening, openListening } from "../../../lib/uring/listening.js";
import { onEachEngine } from "./support/engines.js";

function folder(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), "lamina-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

t.test("descriptors arrive in order, as duplicates, for this user only", async (t) => {
  const path = join(folder(t), "box");
  const box = new DescriptorBox(path);
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.throws(() => box.take(), /EAGAIN/, "nothing has come");
  const sockets = await Promise.all(
    [1, 2, 3].map(() => openListening({ kind: "tcp", host: "127.0.0.1", port: 0 })),
  );
  mailDescriptors(
    path,
    sockets.map(({ fd }) => fd),
  );
  const received = box.take();
  for (const socket of sockets) closeListening(socket);
  const portOf = (fd: number): number => (addon().socketName(fd) as { port: number }).port;
  t.same(
    received.map(portOf),
    sockets.map(({ address }) => (address.kind === "tcp" ? address.port : -1)),
    "open although the sender has closed them",
  );
  for (const fd of received) addon().fileClose(fd);
  box.close();
  t.notOk(existsSync(path));
  t.throws(() => mailDescriptors(path, [0]), /ENOENT/);
});

t.test("more descriptors than a message takes are refused", async (t) => {
  const path = join(folder(t), "box");
  const box = new DescriptorBox(path);
  t.throws(() => mailDescriptors(path, new Array<number>(129).fill(0)), /E2BIG/);
  mailDescriptors(path, new Array<number>(128).fill(0));
  const received = box.take();
  t.equal(received.length, 128);
  t.ok(
    received.every((fd) => addon().fileClose(fd) === 0),
    "each is open",
  );
  t.throws(() => addon().datagramOpen("x".repeat(5000)), /too long/);
  t.equal(addon().datagramOpen(`/${"x".repeat(200)}`), -36, "ENAMETOOLONG");
  box.close();
});

for (const kind of ["tcp", "unix"] as const) {
  onEachEngine(
    t,
    `who connects while a ${kind} socket changes hands is served afterwards`,
    async (t, engine) => {
      const path = join(folder(t), "nbd.sock");
      const wanted: ListenAddress = kind === "tcp" ? { kind, host: "127.0.0.1", port: 0 } : { kind, path };
      const before: ByteStream[] = [];
      const first = await engine.listen(wanted, (stream) => before.push(stream));
      const boxPath = join(folder(t), "box");
      const box = new DescriptorBox(boxPath);
      const where = first.address;
      mailDescriptors(boxPath, [first.fd]);
      const [fd] = box.take();
      box.close();
      await first.leave();

      const client = where.kind === "tcp" ? connect({ host: where.host, port: where.port }) : connect(path);
      await new Promise((resolve, reject) => client.once("connect", resolve).once("error", reject));
      t.equal(before.length, 0, "it waits in the backlog");

      // The other engine, as a successor may have another one.
      const other = openEngine({ kind: engine.kind === "ring" ? "threads" : "auto", poolBytes: MIB });
      let welcome: (stream: ByteStream) => void = () => {};
      const accepted = new Promise<ByteStream>((resolve) => {
        welcome = resolve;
      });
      const second = await other.listen({ kind: "fd", fd: fd!, unlink: kind === "unix" }, welcome);
      t.same(second.address, where);
      const stream = await accepted;
      const closed = new Promise<void>((resolve) =>
        stream.setListener({ streamReceived() {}, streamSent() {}, streamClosed: resolve }),
      );
      stream.close();
      await closed;
      client.destroy();
      await second.close();
      await other.close();
      t.notOk(existsSync(path), "the last one removes the path");
    },
  );
}
