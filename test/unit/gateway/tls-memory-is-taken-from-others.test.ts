/** Ciphertext buffers: bounded together, given back whole, and the growth of some never keeps others out. */
import t from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import { CipherBudget, type CipherMemory } from "../../../lib/uring/cipher-memory.js";
import { PoisonPool } from "./support/loop.js";

const POOL_BYTES = 16 * MIB;
const SHARE_BYTES = POOL_BYTES / 8;

function all(budget: CipherBudget, grow: boolean): CipherMemory[] {
  const taken: CipherMemory[] = [];
  for (let memory = budget.take(); memory !== null; memory = budget.take()) {
    taken.push(memory);
    if (!grow) continue;
    memory.growReceive();
    memory.growSend();
  }
  return taken;
}

void t.test("all connections together stay within their share of the pool, and give everything back", (t) => {
  for (const grow of [false, true]) {
    const pool = new PoisonPool(new Uint8Array(POOL_BYTES));
    const budget = new CipherBudget(pool);
    const taken = all(budget, grow);
    const used = POOL_BYTES - pool.freeBytes;
    t.ok(used <= SHARE_BYTES, `${used} of ${SHARE_BYTES} bytes`);
    t.ok(used > SHARE_BYTES - 64 * KIB, "and nearly all of it can be used");
    for (const memory of taken) memory.give();
    t.equal(pool.freeBytes, POOL_BYTES);
    t.equal(all(budget, grow).length, taken.length, "as many fit again");
  }
  t.end();
});

void t.test("connections that move much leave room for half of those that fit otherwise", (t) => {
  const quiet = all(new CipherBudget(new PoisonPool(new Uint8Array(POOL_BYTES))), false);
  const busy = all(new CipherBudget(new PoisonPool(new Uint8Array(POOL_BYTES))), true);
  t.ok(busy.some(({ receiveBytes, sendBytes }) => receiveBytes > 32 * KIB && sendBytes > 32 * KIB));
  t.ok(2 * busy.length >= quiet.length, `${busy.length} busy ones, ${quiet.length} quiet ones`);
  t.end();
});

void t.test("without room in the pool a connection keeps the buffers that it has", (t) => {
  const pool = new PoisonPool(new Uint8Array(POOL_BYTES));
  const memory = new CipherBudget(pool).take()!;
  for (let bytes = MIB; bytes >= 64 * KIB; bytes /= 2) while (pool.allocate(bytes) >= 0);
  const { receiveAt, sendAt } = memory;
  memory.growReceive();
  memory.growSend();
  t.same([memory.receiveAt, memory.sendAt], [receiveAt, sendAt]);
  t.end();
});
