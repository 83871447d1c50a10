/** Each command in each form of reply, alone: the plainest path through the gateway. */
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOSPC,
} from "nbd-protocol-ts";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

for (const { name, options } of MODES) {
  void t.test(`${name}: write, flush, read back`, (t) => {
    const world = new World();
    const client = world.attach({ ...options, blockSizes: false });
    const written = client.write(5000, pattern(5000, 10_000));
    world.loop.settle();
    const flushed = client.request(NBD_CMD_FLUSH, 0, 0, 0);
    const read = client.read(4000, 12_000);
    world.loop.settle();
    t.equal(client.complaint, "");
    t.same([written.errno, flushed.errno, read.errno], [0, 0, 0]);
    t.ok(Buffer.from(read.data!.subarray(1000, 11_000)).equals(pattern(5000, 10_000)));
    t.ok(read.data!.subarray(0, 1000).every((byte) => byte === 0));
    t.equal(world.volume.flushes, 1);
    t.same(world.close(), CLEAN);
    t.end();
  });

  void t.test(`${name}: requests of many pieces, at odd offsets`, (t) => {
    const world = new World({ poolBytes: 64 * MIB, volumeBytes: 40 * MIB });
    const client = world.attach({ ...options, blockSizes: false });
    const long = pattern(12_345, 5 * MIB + 77);
    const written = client.write(12_345, long, NBD_CMD_FLAG_FUA);
    world.loop.settle();
    const read = client.read(12_345, long.length);
    const hole = client.read(10 * MIB + 1, 3 * MIB);
    const longest = client.read(1, 32 * MIB);
    world.loop.settle();
    t.equal(client.complaint, "");
    t.same([written.errno, read.errno, hole.errno, longest.errno], [0, 0, 0, 0]);
    t.ok(Buffer.from(read.data!).equals(long));
    t.ok(hole.data!.every((byte) => byte === 0));
    t.ok(Buffer.from(longest.data!.subarray(12_344, 12_344 + long.length)).equals(long));
    t.ok(longest.data!.subarray(12_344 + long.length).every((byte) => byte === 0));
    t.same(world.close(), CLEAN);
    t.end();
  });

  void t.test(`${name}: trim, write zeroes, cache`, (t) => {
    const world = new World();
    const client = world.attach(options);
    client.write(0, pattern(0, 65_536));
    world.loop.settle();
    const outcomes = [
      client.request(NBD_CMD_TRIM, 0, 4096, 8192),
      client.request(NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 16_384, 4096),
      client.request(NBD_CMD_CACHE, 0, 0, 65_536),
    ];
    world.loop.settle();
    const read = client.read(0, 65_536);
    world.loop.settle();
    t.same(
      outcomes.map(({ errno }) => errno),
      [0, 0, 0],
    );
    const expected = pattern(0, 65_536).fill(0, 4096, 12_288).fill(0, 16_384, 20_480);
    t.ok(Buffer.from(read.data!).equals(expected));
    t.same([...world.volume.present.subarray(0, 6)], [1, 0, 0, 1, 1, 1]);
    t.same(world.close(), CLEAN);
    t.end();
  });

  void t.test(`${name}: an error of one request is that request's alone`, (t) => {
    const world = new World({ poolBytes: 16 * MIB });
    const client = world.attach(options);
    world.volume.fails = (request) => (request.offset >= MIB && request.offset < 2 * MIB ? NBD_EIO : 0);
    client.write(0, pattern(0, 3 * MIB));
    world.loop.settle();
    const bad = client.read(MIB, 4096);
    const partly = client.read(0, 3 * MIB);
    const good = client.read(0, MIB);
    const badWrite = client.write(MIB + 512, pattern(0, 512));
    const beyond = client.read(4 * MIB, 512);
    const writeBeyond = client.write(4 * MIB - 512, pattern(0, 1024));
    world.loop.settle();
    t.equal(client.complaint, "");
    t.same(
      [bad, partly, good, badWrite, beyond, writeBeyond].map(({ errno }) => errno),
      [NBD_EIO, NBD_EIO, 0, NBD_EIO, NBD_EINVAL, NBD_ENOSPC],
    );
    if (name !== "simple") t.match(bad.text, /checksum/);
    t.ok(Buffer.from(good.data!).equals(pattern(0, MIB)));
    t.same(world.close(), CLEAN);
    t.end();
  });
}

for (const { name, options } of MODES.slice(1)) {
  void t.test(`${name}: holes are named, DF is one chunk`, (t) => {
    const world = new World({ poolBytes: 32 * MIB });
    const client = world.attach(options);
    client.write(65_536, pattern(65_536, 65_536));
    world.loop.settle();
    const sparse = client.read(0, 4 * MIB);
    const whole = client.read(0, 4 * MIB, NBD_CMD_FLAG_DF);
    const hole = client.read(MIB, 512);
    world.loop.settle();
    t.equal(client.complaint, "");
    t.equal(sparse.holeBytes, 4 * MIB - 65_536);
    t.equal(whole.holeBytes, 0);
    t.equal(hole.holeBytes, 512);
    t.ok(Buffer.from(sparse.data!).equals(Buffer.from(whole.data!)));
    t.ok(Buffer.from(sparse.data!.subarray(65_536, 131_072)).equals(pattern(65_536, 65_536)));
    t.same(world.close(), CLEAN);
    t.end();
  });

  void t.test(`${name}: block status says which ranges have bytes`, (t) => {
    const world = new World();
    const client = world.attach(options);
    client.write(8192, pattern(8192, 4096));
    for (let block = 64; block < 1024; block += 2) world.volume.present[block] = 1;
    world.loop.settle();
    const status = client.request(NBD_CMD_BLOCK_STATUS, 0, 0, 65_536);
    const one = client.request(NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 8192, 65_536);
    const many = client.request(NBD_CMD_BLOCK_STATUS, 0, 64 * 4096, 960 * 4096);
    world.loop.settle();
    t.equal(client.complaint, "");
    t.same(status.runs, [8192, 3, 4096, 0, 65_536 - 12_288, 3]);
    t.same(one.runs, [4096, 0]);
    t.equal(many.runs.length, 2 * 960);
    t.same(world.close(), CLEAN);
    t.end();
  });
}
