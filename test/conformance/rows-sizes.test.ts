// Rows Z1–Z7 of the conformance list against the running server: sizes that are advertised, and those that are not kept.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EOVERFLOW,
  NBD_INFO_BLOCK_SIZE,
  PAYLOAD_DRAIN_BYTES_MAX,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { request } from "./encode.js";
import { openSession } from "./raw-client.js";
import { BLOCK, MIB, pattern, rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";

const live = await serveLive(t);
const row = rowsOf(live);
const ASKED = [NBD_INFO_BLOCK_SIZE];

row(
  "Z1: minimum and preferred are powers of two, and the maximum is large enough for all clients",
  async (t, place) => {
    const session = await openSession(place, VOL, { infos: ASKED });
    const { minimum, preferred, maximumPayload } = session.negotiated.blockSizes;
    t.equal(minimum & (minimum - 1), 0);
    t.equal(preferred & (preferred - 1), 0);
    t.ok(minimum <= 512, "nbd-client uses 512 without asking");
    t.ok(preferred >= Math.max(minimum, 512));
    t.ok(maximumPayload >= MIB);
    t.equal(maximumPayload % minimum, 0, "libnbd ignores sizes otherwise");
    session.destroy();
  },
);

row("Z2: the size is a multiple of the minimum block", async (t, place) => {
  const session = await openSession(place, VOL, { infos: ASKED });
  t.equal(session.negotiated.size % session.negotiated.blockSizes.minimum, 0);
  t.equal(session.negotiated.size, VOL_BYTES);
  session.destroy();
});

row(
  "Z3, Z5: a client that asked for no sizes may address single bytes, and no neighbour changes",
  async (t, place) => {
    const session = await openSession(place, VOL);
    const before = pattern(3, 3 * BLOCK);
    await session.write(MIB, before);
    const model = Buffer.from(before);
    for (const [offset, length] of [
      [1, 1],
      [511, 2],
      [4095, 2],
      [4096, 1],
      [5000, 5001],
      [12287, 1],
    ] as const) {
      const bytes = pattern(offset, length);
      await session.write(MIB + offset, bytes);
      bytes.copy(model, offset);
      t.ok((await session.read(MIB + offset, length)).equals(bytes), `${length} at ${offset}`);
    }
    t.ok((await session.read(MIB, 3 * BLOCK)).equals(model));
    session.destroy();
  },
);

row(
  "Z4: 32 MiB of payload are taken, and somewhat more is refused without disconnecting",
  async (t, place) => {
    const session = await openSession(place, VOL);
    const payload = Buffer.alloc(32 * MIB, pattern(9, 64 * 1024));
    await session.write(0, payload);
    t.ok((await session.read(0, 32 * MIB)).equals(payload), "32 MiB");
    t.equal((await session.tryWrite(0, Buffer.alloc(32 * MIB + 512))).errno, NBD_EINVAL, "512 bytes more");
    t.equal((await session.read(0, 512)).length, 512, "the connection is usable");
    session.destroy();
  },
);

row("Z4: a payload beyond any reason ends the connection before it is read", async (t, place) => {
  for (const length of [PAYLOAD_DRAIN_BYTES_MAX + 1, 0xffffffff]) {
    const session = await openSession(place, VOL);
    session.send(request(NBD_CMD_WRITE, { length }));
    await session.ended();
    t.pass(`${length} bytes announced`);
  }
});

row("Z5: what breaks negotiated sizes is EINVAL and changes nothing", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, infos: ASKED });
  const before = pattern(4, BLOCK);
  await session.write(2 * MIB, before);
  t.equal((await session.tryWrite(2 * MIB + 1, Buffer.alloc(512))).errno, NBD_EINVAL);
  t.equal((await session.tryWrite(2 * MIB, Buffer.alloc(513))).errno, NBD_EINVAL);
  for (const type of [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE]) {
    t.equal((await session.request(type, { offset: 2 * MIB + 1, length: 512 })).errno, NBD_EINVAL);
    t.equal((await session.request(type, { offset: 2 * MIB, length: 100 })).errno, NBD_EINVAL);
  }
  t.ok((await session.read(2 * MIB, BLOCK)).equals(before));
  session.destroy();
});

row("Z6: commands without payload may be longer than the maximum payload", async (t, place) => {
  const session = await openSession(place, VOL, {
    mode: ReplyMode.Structured,
    contexts: ["base:allocation"],
  });
  for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS]) {
    t.equal(
      (await session.request(type, { length: VOL_BYTES })).errno,
      0,
      `command ${type} over all of the volume`,
    );
  }
  session.destroy();
});

row(
  "Z7: a READ beyond the maximum is an error, with DF too, and one of 64 KiB always works",
  async (t, place) => {
    const simple = await openSession(place, VOL);
    t.equal((await simple.request(NBD_CMD_READ, { length: 32 * MIB + 512 })).errno, NBD_EINVAL);
    simple.destroy();
    const session = await openSession(place, VOL, { mode: ReplyMode.Structured });
    t.equal((await session.request(NBD_CMD_READ, { length: 32 * MIB + 512 })).errno, NBD_EOVERFLOW);
    t.equal((await session.read(0, 65_536, NBD_CMD_FLAG_DF)).length, 65_536);
    t.equal((await session.read(0, 32 * MIB)).length, 32 * MIB);
    session.destroy();
  },
);
