/** What the checker of the simulated cluster knows of nodes: when it is sure, and when it is not. */
import t from "tap";
import { ExtentFlag, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { simMemory } from "../memory.js";
import { Holdings, LACKING, UNKNOWN, ZEROS } from "./holdings.js";
import { EXTENT_BLOCKS } from "./node-host.js";

const NODE = 1;
const VOLUME = 7;
const REGISTER = EXTENT_BLOCKS + 3;

function op(kind: ExtentOpKind, id = 0, flags = 0): ExtentOp {
  const made = new ExtentOp();
  Object.assign(made, { kind, flags, volume: VOLUME, extent: 1, block: 3, blocks: 2, generation: 5 });
  simMemory().words.fill(id, made.memory >>> 2, (made.memory + 2 * BLOCK_BYTES) >>> 2);
  return made;
}

class Bench {
  readonly holdings = new Holdings(2, [this], VOLUME);
  floor = 0;

  isStable(_register: number, id: number): boolean {
    return id <= this.floor;
  }

  do(kind: ExtentOpKind, id = 0, flags = 0, status: Status = Status.Ok): void {
    const asked = op(kind, id, flags);
    const done = this.holdings.submitted(NODE, asked);
    asked.status = status;
    done?.();
  }

  get holding(): NonNullable<ReturnType<Holdings["of"]>> {
    return this.holdings.of(NODE, VOLUME)!;
  }

  get shows(): number {
    return this.holding.shows[REGISTER]!;
  }

  get stable(): number {
    return this.holding.stable[REGISTER]!;
  }
}

t.test("a flush makes stable what was done when it was asked for, and nothing that came later", async (t) => {
  const bench = new Bench();
  bench.do(ExtentOpKind.Write, 11);
  const flush = op(ExtentOpKind.Flush);
  const flushed = bench.holdings.submitted(NODE, flush);
  bench.do(ExtentOpKind.Write, 12);
  flush.status = Status.Ok;
  flushed!();
  t.equal(bench.stable, 11);
  bench.holdings.powerLost(NODE);
  t.equal(bench.shows, UNKNOWN, "12 may be there or not");
  bench.do(ExtentOpKind.Write, 13, ExtentFlag.Fua);
  bench.holdings.powerLost(NODE);
  t.equal(bench.shows, 13);
});

t.test("an older flush does not take back what FUA has made stable", async (t) => {
  const bench = new Bench();
  bench.do(ExtentOpKind.Write, 11);
  const flush = op(ExtentOpKind.Flush);
  const flushed = bench.holdings.submitted(NODE, flush);
  bench.do(ExtentOpKind.Write, 12, ExtentFlag.Fua);
  flush.status = Status.Ok;
  flushed!();
  t.equal(bench.stable, 12);
});

t.test("what failed, or was open when the process ended, is not known until the next change", async (t) => {
  const bench = new Bench();
  bench.do(ExtentOpKind.Write, 11);
  bench.do(ExtentOpKind.Write, 12, 0, Status.Io);
  t.equal(bench.shows, UNKNOWN);
  bench.do(ExtentOpKind.Free);
  t.equal(bench.shows, ZEROS);
  t.equal(bench.holding.shows[EXTENT_BLOCKS], ZEROS);
  bench.holdings.died(NODE, [op(ExtentOpKind.Stamp), op(ExtentOpKind.Flush)]);
  t.equal(bench.shows, ZEROS);
  bench.holdings.died(NODE, [op(ExtentOpKind.Zero)]);
  t.equal(bench.shows, UNKNOWN);
  t.equal(bench.holding.shows[REGISTER - 1], ZEROS, "of its blocks only");
});

t.test("what had to be copied again after a power loss is not stable before the next flush", async (t) => {
  const bench = new Bench();
  bench.do(ExtentOpKind.Write, 11);
  bench.do(ExtentOpKind.Write, 12);
  bench.holdings.powerLost(NODE);
  bench.do(ExtentOpKind.Flush);
  t.equal(bench.stable, UNKNOWN, "whichever it is");
  bench.floor = 12;
  bench.do(ExtentOpKind.Write, 12);
  t.equal(bench.stable, LACKING);
  bench.do(ExtentOpKind.Flush);
  t.equal(bench.stable, 12);
  bench.do(ExtentOpKind.Write, 12);
  t.equal(bench.stable, 12, "a copy of what is there");
});

t.test("a stamp is of the whole extent, and changes no content", async (t) => {
  const bench = new Bench();
  bench.do(ExtentOpKind.Write, 11);
  bench.do(ExtentOpKind.Stamp);
  t.equal(bench.shows, 11);
  t.same([...bench.holding.under].map((one, i) => one * i).filter((one) => one > 0).length, EXTENT_BLOCKS);
});
