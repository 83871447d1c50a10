/**
 * What a client asked for may have to wait for its range, for as long as a device stands still. Once the client is gone
 * it must not begin: others have written there since, or were told that there is nothing. A Trim or Zero over several
 * groups of extents waits more than once: it locks one group after the other.
 */
import t from "tap";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { VolumeOp, type VolumeRequest } from "../../../lib/volume/api.js";
import { ask, Dice, type Rig, rig, settle } from "./support.js";

const EXTENT_BLOCKS = 16;
const EXTENT_BYTES = EXTENT_BLOCKS * BLOCK_BYTES;
const OLD = 0x11;
const NEW = 0x22;

function write(rigged: Rig, extent: number, value: number): void {
  const data = new Uint8Array(EXTENT_BYTES).fill(value);
  ask(rigged, { op: VolumeOp.Write, offset: extent * EXTENT_BYTES, length: EXTENT_BYTES, data }, () => {});
}

function byteIn(rigged: Rig, extent: number): number {
  let value = -1;
  const what = { op: VolumeOp.Read, offset: extent * EXTENT_BYTES + 8 * BLOCK_BYTES, length: BLOCK_BYTES };
  ask(rigged, what, (_request, bytes) => {
    value = bytes[0]!;
  });
  settle(rigged, new Dice(2));
  return value;
}

for (const op of [VolumeOp.Trim, VolumeOp.Zero]) {
  const name = op === VolumeOp.Trim ? "Trim" : "Zero";
  for (const [shape, offset] of [
    ["of whole blocks", 0],
    ["with partial blocks at its ends", 512],
  ] as const) {
    void t.test(`a ${name} ${shape} whose client is gone ends where it is`, (t) => {
      const rigged = rig({ blocks: 4 * EXTENT_BLOCKS, extentBlocks: EXTENT_BLOCKS });
      for (let extent = 0; extent < 4; extent++) write(rigged, extent, OLD);
      settle(rigged, new Dice(1));

      let wanted = true;
      let answer: VolumeRequest | null = null;
      const length = 3 * EXTENT_BYTES;
      ask(rigged, { op, offset, length, wanted: () => wanted }, (request) => {
        answer = request;
      });
      rigged.ticker.run();
      t.equal(rigged.io.inFlight.length, 1, "it has begun, with its first part");
      wanted = false;
      write(rigged, 1, NEW);
      write(rigged, 2, NEW);
      settle(rigged, new Dice(1));
      t.equal((answer as VolumeRequest | null)?.status, Status.Shutdown);
      t.equal(byteIn(rigged, 1), NEW);
      t.equal(byteIn(rigged, 2), NEW);
      t.equal(rigged.volume.locks.size, 0);
      t.equal(rigged.volume.inFlight, 0);
      t.end();
    });

    void t.test(`a ${name} ${shape} whose client waits is done whole`, (t) => {
      const rigged = rig({ blocks: 4 * EXTENT_BLOCKS, extentBlocks: EXTENT_BLOCKS });
      for (let extent = 0; extent < 4; extent++) write(rigged, extent, OLD);
      settle(rigged, new Dice(1));
      let status = -1;
      ask(rigged, { op, offset, length: 3 * EXTENT_BYTES }, (request) => {
        status = request.status;
      });
      settle(rigged, new Dice(1));
      t.equal(status, Status.Ok);
      for (const extent of [0, 1, 2]) t.equal(byteIn(rigged, extent), 0);
      t.end();
    });
  }
}

void t.test("a write that waits for its range is not begun when its client is gone", (t) => {
  const rigged = rig({ blocks: 4 * EXTENT_BLOCKS, extentBlocks: EXTENT_BLOCKS });
  write(rigged, 1, OLD);
  let wanted = true;
  let status = -1;
  const data = new Uint8Array(2 * EXTENT_BYTES).fill(NEW);
  const what = { op: VolumeOp.Write, offset: EXTENT_BYTES, length: data.length, data, wanted: () => wanted };
  ask(rigged, what, (request) => {
    status = request.status;
  });
  wanted = false;
  let trimmed = -1;
  ask(rigged, { op: VolumeOp.Trim, offset: 2 * EXTENT_BYTES, length: EXTENT_BYTES }, (request) => {
    trimmed = request.status;
  });
  rigged.ticker.run();
  t.equal(trimmed, Status.Ok, "there is nothing to trim yet, and it says so at once");
  settle(rigged, new Dice(1));
  t.equal(status, Status.Shutdown);
  t.equal(byteIn(rigged, 1), OLD);
  t.equal(byteIn(rigged, 2), 0);
  t.equal(rigged.volume.locks.size, 0);
  t.end();
});
