/**
 * Two writers on the two halves of one 4 KiB block: each half must keep what its own writer wrote last, however
 * the rounds interleave (viperblock PR #43 lost one half without a word).
 * The suite runs a bounded number of rounds; scripts/half-blocks is the long form.
 */
import { ReplyMode } from "nbd-protocol-ts";
import t from "tap";
import { openSession, type Session } from "./raw-client.js";
import { BLOCK, type Live, serveLive, VOL } from "./support/live.js";

const ROUNDS = Number(process.env["LAMINA_ROUNDS"] ?? 4000);
/** Writes that one writer has in flight; they go to different blocks. */
const BLOCKS = 32;
const HALF = BLOCK / 2;

const live = await serveLive(t);

/** Both halves of BLOCKS blocks are written side by side, a new value each round; every half is read at the end. */
async function duel(left: Session, right: Session): Promise<string[]> {
  const wrong: string[] = [];
  const bytes = Buffer.alloc(HALF);
  for (let done = 0; done < ROUNDS; done += BLOCKS) {
    const writes: Promise<void>[] = [];
    for (let block = 0; block < BLOCKS; block++) {
      const value = done + block + 1;
      const fill = (side: number): Buffer =>
        Buffer.from(bytes.fill(Buffer.from([value, value >>> 8, value >>> 16, side])));
      writes.push(left.write(block * BLOCK, fill(1)), right.write(block * BLOCK + HALF, fill(2)));
    }
    await Promise.all(writes);
    const block = (done / BLOCKS) % BLOCKS;
    const value = done + block + 1;
    const seen = await left.read(block * BLOCK, BLOCK);
    for (const [side, at] of [
      [1, 0],
      [2, HALF],
    ] as const) {
      const expected = Buffer.alloc(HALF, Buffer.from([value, value >>> 8, value >>> 16, side]));
      if (!seen.subarray(at, at + HALF).equals(expected))
        wrong.push(`round ${done}, block ${block}, half ${side}`);
    }
  }
  return wrong;
}

t.test(`${ROUNDS} rounds on one connection`, async (t) => {
  const session = await openSession(live.tcp, VOL);
  t.same(await duel(session, session), []);
  await session.leave();
});

async function onTwoConnections({ tcp, unix }: Live): Promise<string[]> {
  const left = await openSession(tcp, VOL);
  const right = await openSession(unix, VOL, { mode: ReplyMode.Extended });
  const wrong = await duel(left, right);
  await left.leave();
  await right.leave();
  return wrong;
}

t.test(`${ROUNDS} rounds on two connections`, async (t) => {
  t.same(await onTwoConnections(live), []);
});

t.test(`${ROUNDS} rounds on two connections of two threads`, async (t) => {
  t.same(await onTwoConnections(await serveLive(t, { args: ["--threads", "2"] })), []);
});
