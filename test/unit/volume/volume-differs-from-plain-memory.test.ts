import t from "tap";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { MAP_RUNS_MAX, VolumeFlag, VolumeOp } from "../../../lib/volume/api.js";
import { ask, Dice, type Rig, rig, settle } from "./support.js";

const BLOCKS = 200;

function randomSpan(dice: Dice, bytes: number, longest: number): { offset: number; length: number } {
  const aligned = dice.below(3) === 0;
  const grain = aligned ? BLOCK_BYTES : dice.below(2) === 0 ? 512 : 1;
  const offset = Math.floor(dice.below(bytes) / grain) * grain;
  const limit = Math.min(longest, bytes - offset);
  const length = Math.max(1, Math.min(limit, Math.ceil((1 + dice.below(limit)) / grain) * grain));
  return { offset, length };
}

/** What a Map must say of a model that knows which blocks were written. */
function checkMap(runs: Float64Array, count: number, offset: number, length: number, rigged: Rig): boolean {
  let at = offset;
  for (let i = 0; i < count; i++) {
    const end = at + runs[2 * i]!;
    for (let byte = at; byte < end; byte += BLOCK_BYTES - (byte % BLOCK_BYTES)) {
      rigged.volume.layout.locate(Math.floor(byte / BLOCK_BYTES));
      const { extent, block } = rigged.volume.layout;
      const present = rigged.io.blocks.has(`${extent}:${block}`);
      if (present !== (runs[2 * i + 1] === 1)) return false;
    }
    at = end;
  }
  return at <= offset + length && count > 0;
}

for (const shape of [
  { stripeCount: 1, unitBlocks: 4 },
  { stripeCount: 3, unitBlocks: 4 },
  { stripeCount: 2, unitBlocks: 16 },
]) {
  t.test(`random requests one at a time, ${shape.stripeCount} × ${shape.unitBlocks}`, async (t) => {
    for (let seed = 1; seed <= 30; seed++) {
      const dice = new Dice(seed * 7919);
      const rigged = rig({ blocks: BLOCKS, ...shape });
      const model = new Uint8Array(BLOCKS * BLOCK_BYTES);
      for (let step = 0; step < 120; step++) {
        const op = [
          VolumeOp.Read,
          VolumeOp.Write,
          VolumeOp.Trim,
          VolumeOp.Zero,
          VolumeOp.Map,
          VolumeOp.Flush,
        ][dice.below(6)]!;
        const { offset, length } = randomSpan(
          dice,
          model.length,
          op === VolumeOp.Read || op === VolumeOp.Write ? 100_000 : model.length,
        );
        const flags =
          (dice.below(4) === 0 ? VolumeFlag.Fua : 0) | (dice.below(3) === 0 ? VolumeFlag.NoHole : 0);
        let answered = false;
        const data = new Uint8Array(length);
        if (op === VolumeOp.Write && dice.below(4) > 0) for (let i = 0; i < length; i++) data[i] = dice.u32();
        ask(
          rigged,
          { op, offset, length: op === VolumeOp.Flush ? 0 : length, flags, data },
          (request, bytes) => {
            answered = true;
            if (request.status !== 0) t.fail(`seed ${seed} step ${step}: status ${request.status}`);
            if (
              op === VolumeOp.Read &&
              Buffer.compare(bytes, model.subarray(offset, offset + length)) !== 0
            ) {
              t.fail(`seed ${seed} step ${step}: read of ${length} at ${offset} differs`);
            }
            if (op === VolumeOp.Map && !checkMap(request.runs, request.runCount, offset, length, rigged)) {
              t.fail(`seed ${seed} step ${step}: map of ${length} at ${offset} differs`);
            }
          },
        );
        settle(rigged, dice);
        if (!answered) t.fail(`seed ${seed} step ${step}: no answer`);
        if (op === VolumeOp.Write) model.set(data, offset);
        if (op === VolumeOp.Zero) model.fill(0, offset, offset + length);
        if (op === VolumeOp.Trim) {
          const first = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
          const end = Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES;
          if (first < end) model.fill(0, first, end);
        }
      }
      if (rigged.volume.inFlight !== 0 || rigged.volume.locks.size !== 0)
        t.fail("something is still in flight");
      rigged.owner.close();
      if (rigged.pool.freeBytes !== rigged.freeAtStart) t.fail("pool memory leaked");
    }
    t.pass("30 seeds of 120 steps");
  });
}

t.test("overlapping writes in flight take effect in the order of submission", async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const dice = new Dice(seed * 104729);
    const rigged = rig({ blocks: 40, stripeCount: 1 + dice.below(3) });
    const model = new Uint8Array(40 * BLOCK_BYTES);
    let open = 0;
    for (let step = 0; step < 60; step++) {
      const { offset, length } = randomSpan(dice, model.length, 20_000);
      const data = new Uint8Array(length).fill(1 + dice.below(255));
      open++;
      ask(rigged, { op: VolumeOp.Write, offset, length, data }, () => open--);
      // All are in flight together: the model takes them in order.
      model.set(data, offset);
      if (dice.below(3) === 0 && rigged.io.inFlight.length > 0)
        rigged.io.answer(dice.below(rigged.io.inFlight.length));
    }
    settle(rigged, dice);
    t.equal(open, 0, `seed ${seed}: all answered`);
    let same = false;
    ask(rigged, { op: VolumeOp.Read, offset: 0, length: model.length }, (_request, bytes) => {
      same = Buffer.compare(bytes, model) === 0;
    });
    settle(rigged, dice);
    t.ok(same, `seed ${seed}: content`);
  }
});

t.test("two writers of two halves of one block lose nothing", async (t) => {
  const rigged = rig({ blocks: 16 });
  const dice = new Dice(5);
  for (let round = 0; round < 1000; round++) {
    const a = new Uint8Array(2048).fill(round);
    const b = new Uint8Array(2048).fill(round ^ 0x55);
    ask(rigged, { op: VolumeOp.Write, offset: 0, length: 2048, data: a }, () => undefined);
    ask(rigged, { op: VolumeOp.Write, offset: 2048, length: 2048, data: b }, () => undefined);
    settle(rigged, dice);
    ask(rigged, { op: VolumeOp.Read, offset: 0, length: 4096 }, (_request, bytes) => {
      if (bytes[0] !== (round & 255) || bytes[4095] !== ((round ^ 0x55) & 255)) t.fail(`round ${round}`);
    });
    settle(rigged, dice);
  }
  t.pass("1000 rounds");
});

t.test("holes cost nothing", async (t) => {
  const rigged = rig({ blocks: 2 ** 34, extentBlocks: 1024 });
  const dice = new Dice(1);
  const zeros = new Uint8Array(BLOCK_BYTES * 4);
  const size = rigged.volume.sizeBytes;
  let answers = 0;
  ask(rigged, { op: VolumeOp.Read, offset: size - 65536, length: 65536 }, (request) => {
    t.ok(request.allHole);
    answers++;
  });
  ask(rigged, { op: VolumeOp.Write, offset: 8192, length: zeros.length, data: zeros }, () => answers++);
  ask(rigged, { op: VolumeOp.Trim, offset: 0, length: size }, () => answers++);
  ask(rigged, { op: VolumeOp.Zero, offset: 1, length: size - 2 }, () => answers++);
  ask(rigged, { op: VolumeOp.Map, offset: 0, length: size }, (request) => {
    t.equal(request.runCount, 1);
    t.equal(request.runs[0], size);
    t.equal(request.runs[1], 0);
    answers++;
  });
  settle(rigged, dice);
  t.equal(answers, 5);
  t.equal(rigged.io.seen.length, 0, "no operation was sent for absent extents");
});

t.test("a map never has more runs than its bound, and says where it stopped", async (t) => {
  const blocks = (MAP_RUNS_MAX + 10) * 2;
  const rigged = rig({ blocks, extentBlocks: 1024 });
  const dice = new Dice(3);
  const data = new Uint8Array(BLOCK_BYTES).fill(9);
  for (let block = 0; block < blocks; block += 2) {
    ask(
      rigged,
      { op: VolumeOp.Write, offset: block * BLOCK_BYTES, length: BLOCK_BYTES, data },
      () => undefined,
    );
    if (block % 64 === 0) settle(rigged, dice);
  }
  settle(rigged, dice);
  ask(rigged, { op: VolumeOp.Map, offset: 0, length: blocks * BLOCK_BYTES }, (request) => {
    t.equal(request.runCount, MAP_RUNS_MAX);
    t.ok(checkMap(request.runs, request.runCount, 0, blocks * BLOCK_BYTES, rigged));
  });
  ask(rigged, { op: VolumeOp.Map, offset: 100, length: 20000, flags: VolumeFlag.ReqOne }, (request) => {
    t.equal(request.runCount, 1);
    t.equal(request.runs[0], BLOCK_BYTES - 100);
  });
  settle(rigged, dice);
});

t.test("FAST_ZERO is refused unchanged where it would have to write", async (t) => {
  const rigged = rig({ blocks: 64, extentBlocks: 64 });
  const dice = new Dice(3);
  const data = new Uint8Array(BLOCK_BYTES).fill(9);
  ask(rigged, { op: VolumeOp.Write, offset: 0, length: BLOCK_BYTES, data }, () => undefined);
  settle(rigged, dice);
  const operations = rigged.io.seen.length;
  const refused: [number, number, number][] = [
    [0, 4096, VolumeFlag.FastZero],
    [512, 65536, VolumeFlag.FastZero],
    [0, 65536, VolumeFlag.FastZero | VolumeFlag.NoHole],
  ];
  for (const [offset, length, flags] of refused) {
    ask(rigged, { op: VolumeOp.Zero, offset, length, flags }, (request) => t.equal(request.status, 95));
    settle(rigged, dice);
  }
  t.equal(rigged.io.seen.length, operations, "nothing was sent");
  ask(rigged, { op: VolumeOp.Zero, offset: 0, length: 65536, flags: VolumeFlag.FastZero }, (request) =>
    t.equal(request.status, 0),
  );
  settle(rigged, dice);
});

t.test("FUA over zeros that were skipped still asks for stability", async (t) => {
  const rigged = rig({ blocks: 64 });
  const dice = new Dice(3);
  for (const op of [VolumeOp.Write, VolumeOp.Trim, VolumeOp.Zero]) {
    const before = rigged.io.seen.length;
    ask(
      rigged,
      { op, offset: 0, length: 8192, flags: VolumeFlag.Fua, data: new Uint8Array(8192) },
      (request) => t.equal(request.status, 0),
    );
    settle(rigged, dice);
    t.same(rigged.io.seen.slice(before), [6], "one flush");
  }
});

t.test("one failed operation fails its request only, and leaves nothing behind", async (t) => {
  const rigged = rig({ blocks: 64 });
  const dice = new Dice(3);
  const data = new Uint8Array(5000).fill(7);
  ask(rigged, { op: VolumeOp.Write, offset: 100, length: 5000, data }, (request) =>
    t.equal(request.status, 0),
  );
  settle(rigged, dice);
  rigged.io.fail.add(1);
  ask(rigged, { op: VolumeOp.Read, offset: 0, length: 4096 }, (request) => t.equal(request.status, 5));
  ask(rigged, { op: VolumeOp.Write, offset: 100, length: 10, data: data.subarray(0, 10) }, (request) =>
    t.equal(request.status, 5),
  );
  ask(rigged, { op: VolumeOp.Zero, offset: 100, length: 10 }, (request) => t.equal(request.status, 5));
  ask(rigged, { op: VolumeOp.Write, offset: 0, length: 4096, data: data.subarray(0, 4096) }, (request) =>
    t.equal(request.status, 0),
  );
  settle(rigged, dice);
  t.equal(rigged.volume.inFlight, 0);
  t.equal(rigged.volume.locks.size, 0);
  rigged.owner.close();
  t.equal(rigged.pool.freeBytes, rigged.freeAtStart);
});

t.test(
  "a failed read names the lowest bad byte of its range, in whatever order its parts fail",
  async (t) => {
    for (let seed = 1; seed <= 20; seed++) {
      const dice = new Dice(seed);
      const rigged = rig({ blocks: BLOCKS, stripeCount: 3, unitBlocks: 4 });
      const { layout } = rigged.volume;
      const write = { op: VolumeOp.Write, offset: 0, length: 48 * BLOCK_BYTES };
      ask(rigged, { ...write, data: new Uint8Array(write.length).fill(1) }, () => {});
      settle(rigged, dice);
      const bad = [20 + dice.below(20), 20 + dice.below(20)];
      for (const block of bad) {
        layout.locate(block);
        rigged.io.rotten.add(`${layout.extent}:${layout.block}`);
      }
      const lowest = Math.min(...bad) * BLOCK_BYTES;
      const wanted = [
        { offset: 512, length: 47 * BLOCK_BYTES, badOffset: lowest },
        { offset: lowest + 100, length: 10, badOffset: lowest + 100 },
        { offset: 0, length: 20 * BLOCK_BYTES, badOffset: -1 },
      ];
      let answers = 0;
      for (const { offset, length, badOffset } of wanted) {
        ask(rigged, { op: VolumeOp.Read, offset, length }, (request) => {
          answers++;
          t.equal(request.badOffset, badOffset, `seed ${seed}: read of ${length} at ${offset}`);
        });
        settle(rigged, dice);
      }
      t.equal(answers, wanted.length);
    }
  },
);
