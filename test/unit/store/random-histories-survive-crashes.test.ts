import fc from "fast-check";
import t from "tap";
import type { ExtentOp } from "../../../lib/core/extent-io.js";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { MIB } from "../../../lib/core/limits.js";
import { Machine } from "./support/machine.js";

const EXTENTS = 6;
const BLOCKS = 16;

/** Per block: values it may have now, and values that are stable. */
class Model {
  /** Last acknowledged value. */
  readonly current = new Int32Array(EXTENTS * BLOCKS);
  /** Values it may have after a power loss: the flushed one and all later ones. */
  readonly possible = Array.from(this.current, () => new Set([0]));

  set(extent: number, block: number, value: number): void {
    this.current[extent * BLOCKS + block] = value;
    this.possible[extent * BLOCKS + block]!.add(value);
  }

  flushed(): void {
    this.possible.forEach((values, i) => {
      values.clear();
      values.add(this.current[i]!);
    });
  }
}

type Step =
  | { kind: "write"; extent: number; block: number; fills: number[]; fua: boolean }
  | { kind: "zero"; extent: number; block: number; blocks: number; noHole: boolean }
  | { kind: "free"; extent: number }
  | { kind: "burst"; extent: number; fills: number[] }
  | { kind: "flush" | "kill" | "restart" }
  | { kind: "wait"; ms: number }
  | { kind: "power"; seed: number };

const extent = fc.nat(EXTENTS - 1);
const fills = fc.array(fc.nat(250), { minLength: 1, maxLength: 8 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      extent,
      block: fc.nat(BLOCKS - 8),
      fills,
      fua: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("zero" as const),
      extent,
      block: fc.nat(8),
      blocks: fc.integer({ min: 1, max: 8 }),
      noHole: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("free" as const), extent }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("burst" as const), extent, fills }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom("flush" as const, "kill" as const, "restart" as const) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.nat(8000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("power" as const), seed: fc.nat() }) },
);

function check(machine: Machine, model: Model, t: { fail: (message: string) => void }): boolean {
  for (let e = 0; e < EXTENTS; e++) {
    const values = machine.read(e, 0, BLOCKS);
    for (let b = 0; b < BLOCKS; b++) {
      if (values[b] === model.current[e * BLOCKS + b]) continue;
      t.fail(`extent ${e} block ${b} has ${values[b]}, not ${model.current[e * BLOCKS + b]}`);
      return false;
    }
  }
  return true;
}

/** After a power loss a block may hold any of its possible values, or sectors of several; it then keeps it. */
function pin(machine: Machine, model: Model, t: { fail: (message: string) => void }): boolean {
  for (let e = 0; e < EXTENTS; e++) {
    const values = machine.read(e, 0, BLOCKS);
    for (let b = 0; b < BLOCKS; b++) {
      const possible = model.possible[e * BLOCKS + b]!;
      const value = values[b]!;
      const torn = value === -1 && possible.size > 1;
      if (!possible.has(value) && !torn) {
        t.fail(`extent ${e} block ${b} has ${value} after a power loss, not one of ${[...possible]}`);
        return false;
      }
      model.current[e * BLOCKS + b] = value;
      possible.clear();
      possible.add(value);
    }
  }
  return true;
}

/** The offline check finds nothing, whatever the last life left behind. */
function isSound(machine: Machine, t: { fail: (message: string) => void }): boolean {
  const findings = machine.fsck();
  for (const finding of findings) t.fail(`fsck: ${finding}`);
  return findings.length === 0;
}

function apply(machine: Machine, model: Model, s: Step, t: { fail: (message: string) => void }): boolean {
  switch (s.kind) {
    case "write":
      machine.write(s.extent, s.block, s.fills, s.fua ? ExtentFlag.Fua : 0);
      s.fills.forEach((fill, i) => {
        model.set(s.extent, s.block + i, fill);
        if (!s.fua) return;
        const values = model.possible[s.extent * BLOCKS + s.block + i]!;
        values.clear();
        values.add(fill);
      });
      return true;
    case "zero":
      machine.zero(s.extent, s.block, s.blocks, s.noHole ? ExtentFlag.NoHole : 0);
      for (let i = 0; i < s.blocks; i++) model.set(s.extent, s.block + i, 0);
      return true;
    case "free":
      machine.free(s.extent);
      for (let b = 0; b < BLOCKS; b++) model.set(s.extent, b, 0);
      return true;
    case "burst": {
      const ops: ExtentOp[] = s.fills.map((fill, i) =>
        machine.submit(machine.writing(s.extent, i * 2, [fill])),
      );
      machine.submit(machine.op(ExtentOpKind.Flush, 0, 0, 0));
      for (let i = 0; i < 100 && !ops.every((op) => machine.answered(op)); i++) machine.engine.advance(100);
      for (const op of ops) machine.engine.pool.free(op.memory);
      s.fills.forEach((fill, i) => {
        model.set(s.extent, i * 2, fill);
      });
      return true;
    }
    case "flush":
      machine.flush();
      model.flushed();
      return true;
    case "kill":
      machine.kill();
      if (!isSound(machine, t)) return false;
      machine.start();
      return check(machine, model, t);
    case "restart":
      machine.stop();
      if (!isSound(machine, t)) return false;
      machine.start();
      model.flushed();
      return check(machine, model, t);
    case "wait":
      machine.engine.advance(s.ms);
      return true;
    case "power": {
      let seed = s.seed;
      machine.powerLoss(() => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return seed > 2 ** 31;
      });
      if (!isSound(machine, t)) return false;
      machine.start();
      return pin(machine, model, t);
    }
  }
}

t.test("after any history every block holds what it must", async (t) => {
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 5, maxLength: 60 }),
      fc.record({
        cacheBytes: fc.constantFrom(0, 4096, MIB),
        preHotSlots: fc.integer({ min: 1, max: 4 }),
        hotSlotsMax: fc.integer({ min: 1, max: 8 }),
        coolAfterMs: fc.constantFrom(0, 100, 5000),
        syncIntervalMs: fc.constantFrom(1, 50, 1000),
        checkpointBatch: fc.integer({ min: 1, max: 8 }),
        checkpointAbove: fc.constantFrom(0.1, 0.5, 0.9),
        checkpointBelow: fc.constantFrom(0, 0.1),
        freeingBatch: fc.integer({ min: 1, max: 4 }),
        punchBytesMin: fc.constantFrom(0, 8192, 65536),
      }),
      fc.constantFrom(4096, 16384),
      (steps, tunables, zeroGrainBytes) => {
        const machine = new Machine({
          sizeBytes: MIB,
          open: tunables,
          zeroGrainBytes,
          format: { logBytes: 16384 },
        });
        machine.start();
        const model = new Model();
        const sound = steps.every((s) => apply(machine, model, s, t)) && check(machine, model, t);
        if (machine.seen.rot.length > 0)
          t.fail(`bit rot where nothing rotted: ${JSON.stringify(machine.seen.rot)}`);
        if (machine.seen.failed.length > 0) t.fail(`the device failed: ${machine.seen.failed}`);
        machine.stop();
        return (
          sound && isSound(machine, t) && machine.seen.rot.length === 0 && machine.seen.failed.length === 0
        );
      },
    ),
    { numRuns: 60 },
  );
  t.pass("all histories were sound");
});
