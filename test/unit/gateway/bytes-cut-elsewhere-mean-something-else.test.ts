/** The same bytes of a client, cut at every offset, or arriving one by one, have the same effect. */
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import type { Outcome } from "./support/client.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

const VOLUME_BYTES = 64 * KIB;

/** Legal and illegal requests, payload and none, one behind the other; returns what came of them. */
function run(mode: number, cut: (bytes: Uint8Array) => readonly Uint8Array[]): string {
  const world = new World({ volumeBytes: VOLUME_BYTES, poolBytes: MIB });
  const client = world.attach({ ...MODES[mode]!.options, blockSizes: false });
  const outcomes: Outcome[] = [];
  const parts: Uint8Array[] = [];
  const ask = (type: number, flags: number, offset: number, length: number, payload?: Uint8Array): void => {
    const [outcome, bytes] = client.encode(type, flags, offset, length, payload);
    outcomes.push(outcome);
    parts.push(bytes);
  };
  ask(NBD_CMD_WRITE, 0, 100, 300, pattern(100, 300));
  ask(NBD_CMD_WRITE, 0, VOLUME_BYTES - 10, 50, pattern(0, 50));
  ask(NBD_CMD_READ, 0, 0, 512);
  ask(NBD_CMD_WRITE, 1 << 9, 0, 40, pattern(0, 40));
  ask(NBD_CMD_TRIM, 0, 8192, 4096);
  ask(99, 0, 0, 1);
  ask(NBD_CMD_WRITE, 0, 4000, 200, pattern(4000, 200));
  ask(NBD_CMD_WRITE_ZEROES, 0, 4100, 10);
  if (client.negotiated!.mode !== ReplyMode.Simple) ask(NBD_CMD_BLOCK_STATUS, 0, 0, 65_536);
  ask(NBD_CMD_FLUSH, 0, 0, 0);
  ask(NBD_CMD_READ, 0, 3900, 400);
  const all = Buffer.concat(parts);
  for (const part of cut(all)) {
    client.stream.clientSend(part);
    world.loop.settle();
  }
  const end = world.close();
  if (JSON.stringify(end) !== JSON.stringify(CLEAN)) throw new Error(JSON.stringify(end));
  if (client.complaint !== "") throw new Error(client.complaint);
  const contents = Buffer.from(world.volume.bytes.subarray(0, 8192)).toString("hex");
  return JSON.stringify([outcomes.map(({ errno, data, text }) => [errno, data, text]), contents]);
}

for (const [mode, { name }] of MODES.entries()) {
  void t.test(name, (t) => {
    const whole = run(mode, (bytes) => [bytes]);
    t.notMatch(whole, /\[-1,/, "everything is answered");
    t.equal(
      run(mode, (bytes) => Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))),
      whole,
      "one byte at a time",
    );
    let length = 1;
    let different = 0;
    for (let at = 1; at < length || at === 1; at++) {
      const result = run(mode, (bytes) => {
        length = bytes.length;
        return [bytes.subarray(0, at), bytes.subarray(at)];
      });
      if (result !== whole) different++;
    }
    t.ok(length > 500, `${length} bytes`);
    t.equal(different, 0, "cut at every offset");
    t.end();
  });
}
