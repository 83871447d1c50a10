/** Requests that travel from a connection thread to the owner of their volume, and answers that come back. */
import fc from "fast-check";
import t from "tap";
import { BLOCK_BYTES, KIB, MIB, PIECE_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { MAPS_MAX } from "../../../lib/gateway/limits.js";
import { HANDLES_MAX, loadDouble, RECORDS, storeDouble } from "../../../lib/gateway/threads/channel.js";
import { VolumeFlag, type VolumeListener, VolumeOp, VolumeRequest } from "../../../lib/volume/api.js";
import { ThreadPair } from "./support/thread-pair.js";

class Asker implements VolumeListener {
  readonly answered: VolumeRequest[] = [];
  onDone: (request: VolumeRequest) => void = () => {};

  volumeDone(request: VolumeRequest): void {
    this.answered.push(request);
    this.onDone(request);
  }

  wanted = true;
  stillWanted(): boolean {
    return this.wanted;
  }

  make(op: VolumeOp, offset: number, length: number, memory = 0, flags = 0): VolumeRequest {
    const request = new VolumeRequest();
    Object.assign(request, { op, offset, length, memory, flags, listener: this });
    return request;
  }
}

void t.test("every request is answered once, whoever sleeps when", (t) => {
  let rings = 0;
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 30 }),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 12 }),
      (seed, batches) => {
        const pair = new ThreadPair(seed);
        const asker = new Asker();
        const sent = new Set<VolumeRequest>();
        let again = 50;
        asker.onDone = () => {
          // From inside an answer, as a connection does.
          if (again-- > 0) submit();
        };
        const submit = (): void => {
          const request = asker.make(VolumeOp.Zero, 512 * pair.random.below(2000), 512);
          sent.add(request);
          pair.remote.submit(request);
        };
        for (const count of batches) {
          pair.event(() => {
            for (let i = 0; i < count; i++) submit();
          });
          if (pair.random.chance(2)) pair.settle();
        }
        pair.settle();
        rings += pair.owner.rings + pair.asker.rings;
        return (
          pair.remotes.inFlight === 0 &&
          asker.answered.length === sent.size &&
          new Set(asker.answered).size === sent.size
        );
      },
    ),
    { numRuns: 60 },
  );
  t.ok(rings > 60, "bells were rung");
  t.end();
});

void t.test("beyond the records requests wait, in order", (t) => {
  const pair = new ThreadPair(5, 64 * KIB);
  const asker = new Asker();
  pair.volume.hold(true);
  const count = 2 * RECORDS + 77;
  pair.event(() => {
    for (let i = 0; i < count; i++) {
      const offset = (i * 13) % 64;
      const request = asker.make(VolumeOp.Zero, offset, 1);
      request.tag = i;
      pair.remote.submit(request);
    }
  });
  pair.settle();
  t.equal(pair.volume.submitted, RECORDS, "as many as there are records");
  t.equal(pair.remotes.inFlight, count);
  pair.ownerEvent(() => pair.volume.hold(false));
  pair.settle();
  t.equal(asker.answered.length, count);
  // Ranges that overlap keep their order; the others may pass each other.
  const next = new Array<number>(64).fill(-1);
  for (const { offset, tag } of asker.answered) {
    if (tag <= next[offset]!) t.fail(`request ${tag} came after ${next[offset]}`);
    next[offset] = tag;
  }
  t.end();
});

void t.test("what a dead connection asked for is not begun, and the owner can see it of what was", (t) => {
  const pair = new ThreadPair(11, 64 * KIB);
  const dead = new Asker();
  const alive = new Asker();
  const begun: VolumeRequest[] = [];
  const submit = pair.volume.submit.bind(pair.volume);
  pair.volume.submit = (request) => {
    begun.push(request);
    submit(request);
  };
  pair.volume.hold(true);
  const ask = (): void => {
    for (let i = 0; i < RECORDS / 2 + 10; i++) {
      pair.remote.submit(dead.make(VolumeOp.Zero, i % 64, 1));
      pair.remote.submit(alive.make(VolumeOp.Zero, i % 64, 1));
    }
  };
  pair.event(ask);
  pair.settle();
  t.equal(begun.length, RECORDS);
  t.ok(begun.every((request) => request.listener.stillWanted(request)));
  pair.event(() => {
    dead.wanted = false;
    pair.remote.abandon(dead);
  });
  pair.settle();
  t.equal(begun.filter((request) => request.listener.stillWanted(request)).length, RECORDS / 2);
  pair.ownerEvent(() => pair.volume.hold(false));
  pair.settle();
  t.equal(begun.length, RECORDS + 10, "of those that waited only the living one's were begun");
  t.equal(dead.answered.length, RECORDS / 2 + 10, "all are answered");
  t.equal(alive.answered.length, RECORDS / 2 + 10);
  t.equal(dead.answered.filter(({ status }) => status === Status.Shutdown).length, 10);
  // A record that is used again is wanted again.
  begun.length = 0;
  pair.volume.hold(true);
  pair.event(() => {
    for (let i = 0; i < RECORDS; i++) pair.remote.submit(alive.make(VolumeOp.Zero, i % 64, 1));
  });
  pair.settle();
  t.equal(begun.length, RECORDS);
  t.ok(begun.every((request) => request.listener.stillWanted(request)));
  pair.ownerEvent(() => pair.volume.hold(false));
  pair.settle();
  t.equal(pair.remotes.inFlight, 0);
  t.end();
});

void t.test("the last of overlapping writes stands", (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const pair = new ThreadPair(seed);
    const asker = new Asker();
    const pool = pair.owner.loop.pool;
    let last = -1;
    pair.event(() => {
      for (let i = 0; i < 300; i++) {
        const memory = pool.allocate(BLOCK_BYTES);
        pool.bytes.fill(i & 0xff, memory, memory + BLOCK_BYTES);
        last = i & 0xff;
        pair.remote.submit(asker.make(VolumeOp.Write, 8 * BLOCK_BYTES, BLOCK_BYTES, memory));
      }
    });
    pair.settle();
    const at = 8 * BLOCK_BYTES;
    if (!pair.volume.bytes.subarray(at, at + BLOCK_BYTES).every((byte) => byte === last)) {
      t.fail(`seed ${seed}: an older write came after the newest`);
    }
  }
  t.pass("20 seeds");
  t.end();
});

void t.test("an answer carries what the volume said", (t) => {
  const pair = new ThreadPair(3, 4 * MIB);
  const { pool } = pair.owner.loop;
  const asker = new Asker();
  const ask = (request: VolumeRequest): VolumeRequest => {
    pair.event(() => pair.remote.submit(request));
    pair.settle();
    t.equal(asker.answered.at(-1), request);
    return request;
  };
  const memory = pool.allocate(PIECE_BYTES);
  t.ok(ask(asker.make(VolumeOp.Read, 0, PIECE_BYTES, memory)).allHole, "nothing has been written");
  pool.bytes.fill(9, memory, memory + PIECE_BYTES);
  ask(asker.make(VolumeOp.Write, 200 * BLOCK_BYTES, 2 * BLOCK_BYTES, memory, VolumeFlag.Fua));
  const read = ask(asker.make(VolumeOp.Read, 0, PIECE_BYTES, memory));
  t.notOk(read.allHole);
  const present = Array.from({ length: 256 }, (_, i) => (read.present[i >>> 5]! >>> (i & 31)) & 1);
  t.same(
    present.flatMap((bit, i) => (bit === 1 ? [i] : [])),
    [200, 201],
  );
  const map = ask(asker.make(VolumeOp.Map, 0, 4 * MIB));
  t.equal(map.runCount, 3);
  t.same([...map.runs], [200 * BLOCK_BYTES, 0, 2 * BLOCK_BYTES, 1, 4 * MIB - 202 * BLOCK_BYTES, 0]);
  pair.volume.fails = () => Status.NoSpace;
  t.equal(ask(asker.make(VolumeOp.Zero, 0, MIB, 0, VolumeFlag.NoHole)).status, Status.NoSpace);
  t.equal(ask(asker.make(VolumeOp.Map, 0, MIB)).runCount, 0, "no runs with an error");
  pair.volume.fails = (request) => {
    request.badOffset = request.offset + 77;
    return Status.Io;
  };
  t.equal(ask(asker.make(VolumeOp.Read, MIB + 512, 4096, memory)).badOffset, MIB + 512 + 77);
  pair.volume.fails = () => Status.Io;
  t.equal(ask(asker.make(VolumeOp.Read, MIB + 512, 4096, memory)).badOffset, -1, "where is not known");
  t.end();
});

void t.test("more maps than areas are asked for one after the other", (t) => {
  const pair = new ThreadPair(4);
  const asker = new Asker();
  let left = 5 * MAPS_MAX;
  const ask = (): void => {
    left--;
    pair.remote.submit(asker.make(VolumeOp.Map, 0, MIB));
  };
  asker.onDone = () => {
    if (left > 0) ask();
  };
  pair.event(() => {
    for (let i = 0; i < MAPS_MAX; i++) ask();
  });
  pair.settle();
  t.equal(asker.answered.length, 5 * MAPS_MAX);
  t.ok(asker.answered.every(({ runCount }) => runCount === 1));
  t.end();
});

void t.test("a volume that grows is seen by the thread before anybody is told", (t) => {
  const pair = new ThreadPair(6);
  t.equal(pair.remote.sizeBytes, MIB);
  pair.volume.grow(3 * MIB);
  pair.port.volumeChanged(8);
  t.equal(pair.remote.sizeBytes, MIB, "another volume's change is none of it");
  pair.port.volumeChanged(7);
  t.equal(pair.remote.sizeBytes, 3 * MIB);
  t.end();
});

void t.test("handles are given back and found again; beyond them nothing is opened", (t) => {
  const pair = new ThreadPair(7);
  const { volume, port } = pair;
  const opened = { volume, record: volume.record, release: () => pair.released++ };
  const handles = [pair.handle];
  for (let handle = port.open(opened); handle >= 0; handle = port.open(opened)) handles.push(handle);
  t.equal(handles.length, HANDLES_MAX);
  port.close(handles[5]!);
  t.equal(pair.released, 1);
  t.equal(port.open(opened), handles[5]);
  t.throws(() => {
    port.close(handles[5]!);
    port.close(handles[5]!);
  }, "closed twice");
  t.end();
});

void t.test("a handle with a request under way is not given back", (t) => {
  const pair = new ThreadPair(8);
  const asker = new Asker();
  pair.volume.hold(true);
  pair.event(() => pair.remote.submit(asker.make(VolumeOp.Flush, 0, 0)));
  pair.settle();
  t.throws(() => pair.port.close(pair.handle));
  pair.ownerEvent(() => pair.volume.hold(false));
  pair.settle();
  t.equal(asker.answered.length, 1);
  pair.port.close(pair.handle);
  t.equal(pair.released, 1);
  t.end();
});

void t.test("offsets and lengths up to 2^53 survive being cut in two", (t) => {
  const words = new Int32Array(2);
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      storeDouble(words, 0, value);
      return loadDouble(words, 0) === value;
    }),
  );
  for (const value of [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 52 + 1, Number.MAX_SAFE_INTEGER]) {
    storeDouble(words, 0, value);
    t.equal(loadDouble(words, 0), value);
  }
  t.end();
});
