import t from "tap";
import type { LaminaError } from "../../../lib/core/errors.js";
import { RECORD_BYTES_MAX } from "../../../lib/store/index.js";
import { Machine } from "./support/machine.js";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = (bytes: Uint8Array | undefined): string | null =>
  bytes === undefined ? null : new TextDecoder().decode(bytes);

function put(machine: Machine, volume: number, bytes: Uint8Array | null): LaminaError | null {
  let result: LaminaError | null | undefined;
  machine.store.putRecord(volume, bytes, (error) => {
    result = error;
  });
  machine.engine.advance(10);
  if (result === undefined) throw new Error("putRecord did not end");
  return result;
}

t.test("records are durable when done says so, replaced, and removed", async (t) => {
  const machine = new Machine().start();
  t.equal(put(machine, 5, bytesOf("five")), null);
  t.equal(put(machine, 6, bytesOf("x".repeat(RECORD_BYTES_MAX))), null);
  machine.powerLoss().start();
  t.equal(textOf(machine.store.records().get(5)), "five");
  t.equal(machine.store.records().get(6)?.length, RECORD_BYTES_MAX);
  put(machine, 5, bytesOf("cinq"));
  put(machine, 6, null);
  put(machine, 99, null);
  machine.powerLoss().start();
  t.same([...machine.store.records().keys()], [5]);
  t.equal(textOf(machine.store.records().get(5)), "cinq");
  machine.stop();
});

t.test("when all are taken, one more is refused, and a removed one makes room", async (t) => {
  const machine = new Machine({ format: { records: 3 } }).start();
  for (let volume = 1; volume <= 3; volume++) t.equal(put(machine, volume, bytesOf("r")), null);
  t.equal(put(machine, 4, bytesOf("r"))?.code, "VOLUMES_FULL");
  put(machine, 2, null);
  t.equal(put(machine, 4, bytesOf("r")), null);
  machine.stop();
  t.same(machine.fsck(), []);
});

t.test(
  "power lost at any moment of an update leaves the old record or the new one, and then keeps it",
  async (t) => {
    const outcomes = new Set<string | null>();
    for (let cut = 0; cut < 8; cut++) {
      for (const mask of [0, 0xffff, 0x5555, 0x00ff]) {
        const machine = new Machine().start();
        put(machine, 5, bytesOf("old".repeat(1000)));
        const { recordsA, hotA } = machine.layout;
        let changes = 0;
        machine.disk.fault = (event) => {
          const ours = event.kind === "sync" || (event.offset >= recordsA && event.offset < hotA);
          if (ours && changes++ === cut) machine.disk.frozen = true;
          return 0;
        };
        machine.store.putRecord(5, bytesOf("new".repeat(1000)), () => undefined);
        machine.engine.settle();
        machine.powerLoss((sector) => (mask & (1 << (sector % 16))) !== 0).start();
        const first = textOf(machine.store.records().get(5))?.slice(0, 3) ?? null;
        outcomes.add(first);
        // A copy that rots later must not uncover the other one's older record.
        machine.stop();
        machine.disk.bytes[recordsA + 99]! ^= 1;
        machine.start();
        t.equal(textOf(machine.store.records().get(5))?.slice(0, 3), first);
        machine.stop();
      }
    }
    t.same([...outcomes].sort(), ["new", "old"]);
  },
);

t.test("both copies damaged: the device is not opened as if the volume had never been", async (t) => {
  const machine = new Machine().start();
  put(machine, 5, bytesOf("five"));
  machine.stop();
  const { recordsA, recordsB } = machine.layout;
  for (const at of [recordsA, recordsB]) machine.disk.bytes[at + 70]! ^= 1;
  t.throws(() => machine.start(), { code: "DEVICE_DAMAGED" });
  t.match(machine.fsck(), [/volume record 0/]);
});
