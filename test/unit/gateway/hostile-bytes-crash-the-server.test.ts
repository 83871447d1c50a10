/**
 * Bytes that no honest client sends, through a whole connection: options and requests with wrong lengths,
 * unknown numbers and flags, repeated, cut and torn off. The server neither throws nor hangs nor keeps
 * anything, and an honest client is served all the time.
 */
import { encodeRequest, encodeText } from "nbd-protocol-ts";
import t from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import type { SeededRandom } from "./support/loop.js";
import { CLEAN, pattern, World } from "./support/world.js";

const LENGTHS = [0, 1, 5, 511, 512, 4095, 4096, 4097, 65_536, MIB, 33 * MIB, 0x7fffffff, 0xffffffff];
const OFFSETS = [
  0,
  1,
  512,
  4096,
  65_535,
  128 * KIB - 1,
  128 * KIB,
  2 ** 32,
  2 ** 52,
  Number.MAX_SAFE_INTEGER,
];

function pick<T>(random: SeededRandom, values: readonly T[]): T {
  return values[random.below(values.length)]!;
}

function option(random: SeededRandom): Uint8Array {
  const number = random.chance(6) ? random.u32() : 1 + random.below(12);
  const name = random.chance(2) ? "v" : "x".repeat(pick(random, [0, 1, 255, 4096, 4097]));
  const body = new Uint8Array(
    random.chance(3) ? random.below(64) : 4 + name.length + 2 + 4 * random.below(3),
  );
  if (body.length >= 4 + name.length) {
    const nameLength = random.chance(4) ? pick(random, LENGTHS) : name.length;
    new DataView(body.buffer).setUint32(0, nameLength);
    body.set(encodeText(name), 4);
    if (random.chance(2) && body.length >= 10 + name.length) body[body.length - 5] = 1;
  }
  const bytes = new Uint8Array(16 + body.length);
  bytes.set(encodeText(random.chance(40) ? "IHAVEOPX" : "IHAVEOPT"));
  const view = new DataView(bytes.buffer);
  view.setUint32(8, number);
  view.setUint32(12, random.chance(10) ? pick(random, LENGTHS) : body.length);
  bytes.set(body, 16);
  return bytes;
}

/** An honest GO for the volume "v", so that many inputs reach the transmission phase. */
function go(): Uint8Array {
  const bytes = new Uint8Array(16 + 7);
  bytes.set(encodeText("IHAVEOPT"));
  const view = new DataView(bytes.buffer);
  view.setUint32(8, 7);
  view.setUint32(12, 7);
  view.setUint32(16, 1);
  bytes.set(encodeText("v"), 20);
  return bytes;
}

function plainOption(number: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(encodeText("IHAVEOPT"));
  new DataView(bytes.buffer).setUint32(8, number);
  return bytes;
}

function request(random: SeededRandom, extended: boolean): Uint8Array {
  const type = random.chance(12) ? random.below(65_536) : random.below(9);
  const flags = random.chance(2) ? 0 : random.below(64) | (random.chance(10) ? random.below(65_536) : 0);
  const length = random.chance(2) ? random.below(16 * KIB) : pick(random, LENGTHS);
  const offset = random.chance(2) ? random.below(128 * KIB) : pick(random, OFFSETS);
  const payload = random.chance(3) ? random.below(20 * KIB) : Math.min(length, 64 * KIB);
  const carries = type === 1 || (extended && (flags & 32) !== 0);
  const bytes = new Uint8Array(32 + (carries ? payload : 0));
  const view = new DataView(bytes.buffer);
  const size = encodeRequest(view, 0, extended, flags, type, random.u32(), random.u32(), offset, length);
  if (random.chance(60)) bytes[random.below(size)]! ^= 1 << random.below(8);
  return bytes.subarray(0, size + (carries ? payload : 0));
}

function input(random: SeededRandom): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.of(0, 0, 0, random.chance(12) ? random.below(256) : 3)];
  for (let i = random.below(4); i > 0; i--) parts.push(option(random));
  const extended = random.chance(3);
  if (extended) parts.push(plainOption(11));
  else if (random.chance(2)) parts.push(plainOption(8));
  parts.push(go());
  for (let i = random.below(12); i > 0; i--) parts.push(request(random, extended));
  const all = Buffer.concat(parts);
  return random.chance(4) ? all.subarray(0, random.below(all.length + 1)) : all;
}

/** Returns whether the input got as far as the transmission phase. */
function run(seed: number): boolean {
  const world = new World({ seed, poolBytes: MIB, volumeBytes: 128 * KIB });
  const { random } = world;
  if (random.chance(2)) {
    world.volume.fails = () => (random.chance(6) ? 5 : 0);
  }
  const honest = world.attach();
  const hostile = world.stream({ receiveMax: pick(random, [1 << 20, 1000, 37]) });
  const bytes = input(random);
  hostile.clientListen(() => {});
  const cut = random.below(bytes.length + 1);
  hostile.clientSend(bytes.subarray(0, cut));
  world.loop.settle();
  const reached = world.opens > 1;
  hostile.clientSend(bytes.subarray(cut));
  if (random.chance(3)) hostile.clientReset();
  else if (random.chance(2)) hostile.clientEnd();
  world.loop.advance(20_000);
  world.volume.fails = () => 0;
  const written = honest.write(0, pattern(0, 5 * 512));
  world.loop.settle();
  const read = honest.read(0, 5 * 512);
  world.loop.advance(5000);
  if (honest.complaint !== "") throw new Error(honest.complaint);
  if (written.errno !== 0 || read.errno !== 0) throw new Error("the honest client was not served");
  const end = world.close();
  if (JSON.stringify(end) !== JSON.stringify(CLEAN)) throw new Error(JSON.stringify(end));
  return reached;
}

void t.test("hostile bytes change nothing for anybody else", (t) => {
  const INPUTS = 400;
  const first = Math.floor(Math.random() * 2 ** 30);
  let reached = 0;
  for (let seed = first; seed < first + INPUTS; seed++) {
    try {
      if (run(seed)) reached++;
    } catch (error) {
      t.fail(`seed ${seed}: ${String(error)}`);
      break;
    }
  }
  t.ok(reached > INPUTS / 10, `${reached} of ${INPUTS} inputs from seed ${first} reached the volume`);
  t.end();
});
