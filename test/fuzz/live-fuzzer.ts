/**
 * Damaged conversations, said to a running server. The same inputs as for the state machines alone
 * (test/unit/nbd/fuzzer.ts), so that a seed and a number bring any of them back; here the bytes pass through
 * sockets, the gateway's buffers and the store.
 *
 * Checked of each input: the server ends the connection once it has everything, and begins what it says with a
 * greeting. Of all of them: the process lives, serves a real client, does not grow, and lets go of every connection.
 */

import { GREETING_BYTES } from "nbd-protocol-ts";
import { type Place, RawSocket } from "../conformance/raw-socket.js";
import { pause } from "../interop/support/server.js";
import { Dice, fuzzServer } from "../unit/nbd/fuzzer.js";

/** Connections at once: well below the server's bound of handshakes. */
const PARALLEL = 48;
/** Long enough for most answers under load; an answer that comes later is only not looked at. */
const QUIET_MS = 10;

export interface FuzzRun {
  readonly inputs: number;
  /** Bytes that the server said. */
  readonly answered: number;
}

/**
 * Says one stream of bytes in the given pieces behind the greeting, ends our side, and returns what was answered.
 * A server that drops the connection with bytes unread resets it, and the reset may take its last answers along.
 */
export async function say(place: Place, bytes: Uint8Array, cuts: readonly number[]): Promise<Buffer> {
  const socket = await RawSocket.connect(place);
  const greeting = await socket.exactly(GREETING_BYTES);
  if (greeting.toString("latin1", 0, 16) !== "NBDMAGICIHAVEOPT") throw new Error("the server did not greet");
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    if (cut <= at) continue;
    if (!(await socket.sent(bytes.subarray(at, cut)))) break;
    at = cut;
  }
  await quiet(socket);
  socket.end();
  const answered = await socket.rest();
  socket.destroy();
  return answered;
}

/**
 * Waits until nothing more is answered: a connection whose client has ended its side is superseded by the next one
 * of the volume, answered or not.
 */
async function quiet(socket: RawSocket): Promise<void> {
  for (let before = -1; before !== socket.available && !socket.closed; ) {
    before = socket.available;
    await pause(QUIET_MS);
  }
}

/** Input number `index` of a seed, as the fuzzer of the machines builds them. */
export function inputOf(seed: number, index: number): { bytes: Uint8Array; cuts: number[] } {
  const dice = new Dice(Math.imul(seed, 0x85ebca6b) ^ index);
  const bytes = fuzzServer(dice);
  const cuts = Array.from({ length: dice.below(4) }, () => dice.below(bytes.length + 1));
  return { bytes, cuts: cuts.sort((a, b) => a - b) };
}

/** Says inputs `first … first + count − 1` of a seed; throws with the first that fails. */
export async function fuzzLive(
  places: readonly Place[],
  seed: number,
  first: number,
  count: number,
): Promise<FuzzRun> {
  let next = first;
  let answered = 0;
  const worker = async (): Promise<void> => {
    while (next < first + count) {
      const index = next++;
      const { bytes, cuts } = inputOf(seed, index);
      try {
        const { length } = await say(places[index % places.length]!, bytes, cuts);
        answered += length;
      } catch (error) {
        const hex = Buffer.from(bytes).toString("hex");
        throw new Error(`seed ${seed}, input ${index}: ${String(error)}\nbytes ${hex}`, { cause: error });
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return { inputs: count, answered };
}
