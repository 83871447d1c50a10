import t from "tap";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { VolumeOp } from "../../../lib/volume/api.js";
import { ask, Dice, rig, settle } from "./support.js";

t.test(
  "holes, flushes and what needs no extent wait while the gate is shut, and keep their order",
  async (t) => {
    const gate = { isOpen: false, mayAnswer: () => gate.isOpen };
    const rigged = rig({ blocks: 64, gate });
    const answered: string[] = [];
    const asks = [
      { name: "hole", op: VolumeOp.Read, offset: 0, length: BLOCK_BYTES },
      { name: "cache", op: VolumeOp.Cache, offset: 0, length: BLOCK_BYTES },
      {
        name: "zeros",
        op: VolumeOp.Write,
        offset: 0,
        length: BLOCK_BYTES,
        data: new Uint8Array(BLOCK_BYTES),
      },
      { name: "trim", op: VolumeOp.Trim, offset: 0, length: 64 * BLOCK_BYTES },
      { name: "map", op: VolumeOp.Map, offset: 0, length: 64 * BLOCK_BYTES },
    ];
    for (const { name, ...what } of asks) ask(rigged, what, () => answered.push(name));
    settle(rigged, new Dice(1));
    ask(rigged, { op: VolumeOp.Flush, offset: 0, length: 0 }, () => answered.push("flush"));
    settle(rigged, new Dice(1));
    t.same(answered, []);
    rigged.owner.resume();
    settle(rigged, new Dice(1));
    t.same(answered, [], "still shut");
    gate.isOpen = true;
    rigged.owner.resume();
    settle(rigged, new Dice(1));
    t.same(answered, [...asks.map(({ name }) => name), "flush"]);
    rigged.owner.resume();
    settle(rigged, new Dice(1));
    t.equal(answered.length, asks.length + 1, "each once");
  },
);
