// A copy that ends well is the whole of it: errors of either side end it with a place, and a table at the very end of
// an image is where it was.
import { readFileSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_OPT_GO,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { importRaw } from "../../lib/cli/copy/import.js";
import { NbdCopyClient } from "../../lib/cli/copy/nbd-client.js";
import { Progress } from "../../lib/cli/progress.js";
import { check, run } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { LAMINA } from "../interop/support/server.js";
import { u16, u32 } from "./encode.js";
import { openSession } from "./raw-client.js";
import { RawSocket } from "./raw-socket.js";
import { flipOneByteOf } from "./support/bit-rot.js";
import { checkGpt, gptImage } from "./support/gpt.js";
import { BLOCK, MIB, pattern, serveLive, VOL } from "./support/live.js";

function scratch(t: Pick<Test, "teardown">): string {
  const directory = scratchDirectory();
  t.teardown(async () => removeScratch(directory));
  return directory;
}

t.test("CVE-2022-0485: copies of a volume with a flipped byte fail and say where", async (t) => {
  const directory = scratch(t);
  const { server, tcp } = await serveLive(t, { capacity: "256M", size: "8M" });
  const writer = await openSession(tcp, VOL);
  for (let at = 0; at < 8; at++) await writer.write(at * MIB, pattern(at, MIB));
  const rotten = Buffer.alloc(BLOCK, "a block that will rot ");
  const last = 8 * MIB - BLOCK;
  await writer.write(last, rotten);
  await writer.flush();
  await writer.leave();
  await server.stop();
  t.ok(flipOneByteOf(server.backingFile(), rotten), "the block is in the file");
  await server.start();

  const data = ["--data", server.data];
  const out = join(directory, "out");
  const exported = await run(LAMINA, ["volume", "export", VOL, out, ...data]);
  t.equal(exported.code, 1, "export");
  t.match(exported.stderr, new RegExp(`at byte ${7 * MIB}: .*EIO`), "names the piece that failed");
  t.throws(() => readFileSync(out), { code: "ENOENT" }, "and leaves nothing that looks like a copy");

  // An image that ends within the rotten block needs what the volume has behind it.
  const image = join(directory, "image");
  writeFileSync(image, pattern(99, 8 * MIB - 100));
  const imported = await run(LAMINA, ["volume", "import", VOL, image, ...data]);
  t.equal(imported.code, 1, "import");
  t.match(imported.stderr, new RegExp(`at byte ${7 * MIB}: .*EIO`), "names the piece that failed");

  await t.test("nbdcopy", requires({ commands: ["nbdcopy"] }), async (t) => {
    const copied = await run("nbdcopy", [server.uri(VOL), join(directory, "copy")]);
    t.not(copied.code, 0);
    t.match(copied.stderr, /Input\/output error/);
  });
});

/** A server of another make: it knows GO and simple replies, and answers `errno` to every request of a type. */
async function failing(t: Test, type: number, errno: number): Promise<NbdCopyClient> {
  const path = join(scratch(t), "nbd.sock");
  const listener = createServer((socket) => {
    // The client's end of the connection is the end of the conversation.
    converse(socket, type, errno).catch(() => socket.destroy());
  });
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  t.teardown(() => listener.close());
  return NbdCopyClient.connect({ kind: "unix", path }, "v");
}

async function converse(socket: Socket, type: number, errno: number): Promise<void> {
  const peer = RawSocket.of(socket);
  peer.send(Buffer.from("NBDMAGICIHAVEOPT"), u16(3));
  await peer.exactly(4);
  const reply = (option: number, code: number, data = Buffer.alloc(0)): void =>
    peer.send(Buffer.from("0003e889045565a9", "hex"), u32(option), u32(code), u32(data.length), data);
  for (let going = false; !going; ) {
    const header = await peer.exactly(16);
    const option = header.readUInt32BE(8);
    await peer.exactly(header.readUInt32BE(12));
    going = option === NBD_OPT_GO;
    if (going) reply(option, 3, Buffer.concat([u16(0), u32(0), u32(64 * MIB), u16(0b1100101)]));
    reply(option, going ? 1 : 0x80000001);
  }
  for (;;) {
    const header = await peer.exactly(28);
    const asked = header.readUInt16BE(6);
    const length = header.readUInt32BE(24);
    if (asked === NBD_CMD_DISC) return;
    if (asked === NBD_CMD_WRITE) await peer.exactly(length);
    const error = asked === type ? errno : 0;
    peer.send(u32(0x67446698), u32(error), header.subarray(8, 16));
    if (asked === NBD_CMD_READ && error === 0) peer.send(Buffer.alloc(length));
  }
}

t.test("CVE-2022-0485: no error that another server answers is taken for success", async (t) => {
  const cases: [string, number, (client: NbdCopyClient) => Promise<void>][] = [
    ["READ", NBD_CMD_READ, (client) => client.read(0, Buffer.alloc(BLOCK))],
    ["WRITE", NBD_CMD_WRITE, (client) => client.write(0, Buffer.alloc(BLOCK))],
    ["WRITE_ZEROES", NBD_CMD_WRITE_ZEROES, (client) => client.zero(0, BLOCK)],
    ["FLUSH", NBD_CMD_FLUSH, (client) => client.flush()],
  ];
  for (const [name, type, ask] of cases) {
    const good = await failing(t, type, 0);
    await ask(good);
    good.close();
    for (const [what, errno] of [
      ["EIO", NBD_EIO],
      ["ENOSPC", NBD_ENOSPC],
      ["EPERM", NBD_EPERM],
    ] as const) {
      const client = await failing(t, type, errno);
      await t.rejects(ask(client), { message: new RegExp(what) }, `${name}: ${what}`);
      client.close();
    }
  }

  const image = join(scratch(t), "image");
  // Data, zeros, data, and an end within a block.
  writeFileSync(image, Buffer.concat([pattern(1, MIB), Buffer.alloc(MIB), pattern(2, MIB + 100)]));
  for (const [name, type] of cases) {
    const client = await failing(t, type, NBD_EIO);
    const file = await open(image, "r");
    const copy = importRaw(client, file, 3 * MIB + 100, false, new Progress("importing", 3 * MIB, true));
    await t.rejects(copy, { message: /EIO/ }, `an import whose ${name} fails`);
    await file.close();
    client.close();
  }
});

t.test(
  "nbd #157, benji #12: a GPT is found where it was, also at the end, with either sector size",
  async (t) => {
    const directory = scratch(t);
    const { server, tcp } = await serveLive(t, { capacity: "256M" });
    for (const sector of [512, 4096]) {
      const volume = `sectors-of-${sector}`;
      const bytes = gptImage(16 * MIB, sector);
      checkGpt(t, bytes, sector);
      const image = join(directory, volume);
      writeFileSync(image, bytes);
      await server.lamina("volume", "import", volume, image);

      const session = await openSession(tcp, volume);
      t.equal(session.negotiated.size, bytes.length, "the volume ends where the image ends");
      // As clients with blocks of the one and of the other size read what they look for first.
      const edge = 40 * sector;
      for (const block of [512, 4096]) {
        const read = Buffer.alloc(bytes.length);
        for (const from of [0, bytes.length - edge]) {
          for (let at = from; at < from + edge; at += block) (await session.read(at, block)).copy(read, at);
        }
        checkGpt(t, read, sector);
      }
      // A table is changed one sector at a time.
      const last = bytes.length - sector;
      const header = await session.read(last, sector);
      await session.write(last, Buffer.alloc(sector));
      await session.write(last, header);
      await session.leave();

      const out = join(directory, `${volume}.out`);
      await server.lamina("volume", "export", volume, out);
      t.ok(readFileSync(out).equals(bytes), "the same image");
      await t.test(`partx, ${sector}`, requires({ commands: ["partx"] }), async (t) => {
        const columns = ["--show", "--noheadings", "--output", "START,END,NAME"];
        const shown = await check("partx", [...columns, "--sector-size", String(sector), out]);
        // It counts in 512 bytes whatever the sectors are.
        t.match(shown, new RegExp(`\\b${MIB / 512} +${(9 * MIB) / 512 - 1} +data`));
      });
    }
  },
);
