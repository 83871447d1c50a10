import t from "tap";
import { LaminaError } from "../../../lib/core/errors.js";
import { MIB } from "../../../lib/core/limits.js";
import { Pool } from "../../../lib/core/pool.js";
import type { Store } from "../../../lib/store/api.js";
import { DeviceRegistry } from "../../../lib/volume/registry.js";
import type { RegistryEvent } from "../../../lib/volume/registry-api.js";
import { Dice, FakeExtents, fakeChecksums, ManualTicker } from "./support.js";

/** A store that keeps records and lets the test decide when a write of one is durable. */
function fakeStore(): {
  store: Store;
  durable: Map<number, Uint8Array>;
  dropped: number[];
  hold: { on: boolean; waiting: (() => void)[] };
  pool: Pool;
} {
  const pool = new Pool(new Uint8Array(4 * MIB));
  const durable = new Map<number, Uint8Array>();
  const dropped: number[] = [];
  const hold = { on: false, waiting: [] as (() => void)[] };
  const io = new FakeExtents(pool);
  const partial: Partial<Store> = {
    extentBlocks: 1024,
    submit: (op) => io.submit(op),
    inventory: () => undefined,
    slotsOf: () => 0,
    badBlocks: () => [],
    records: () => durable,
    dropVolume: (volume, done) => {
      dropped.push(volume);
      done(null);
    },
    putRecord: (volume, bytes, done) => {
      const land = (): void => {
        if (bytes === null) durable.delete(volume);
        else durable.set(volume, bytes);
        done(null);
      };
      if (hold.on) hold.waiting.push(land);
      else land();
    },
  };
  return { store: partial as Store, durable, dropped, hold, pool };
}

function registryOn(fake: ReturnType<typeof fakeStore>, seed = 1): DeviceRegistry {
  const dice = new Dice(seed);
  return new DeviceRegistry({
    store: fake.store,
    pool: fake.pool,
    clock: { now: () => 0, wall: () => 1234, setTimer: () => ({ cancel: () => undefined }) },
    random: { u32: () => dice.u32() },
    ticker: new ManualTicker(),
    checksums: fakeChecksums(fake.pool),
  });
}

/** Each is a rule that may be; together they are longer than the page of a record. */
const TOO_MANY = Array.from({ length: 80 }, (_, i) => ({
  kind: "address" as const,
  value: `2001:db8:1:${i}::/64`,
  readOnly: false,
}));

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "no error";
  } catch (error) {
    return error instanceof LaminaError ? error.code : String(error);
  }
}

t.test("create answers only once the record is durable, and it is there after a restart", async (t) => {
  const fake = fakeStore();
  const registry = registryOn(fake);
  fake.hold.on = true;
  let answered = false;
  const creating = registry.create({ name: "demo", size: 1 << 30 }).then(() => {
    answered = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(fake.hold.waiting.length, 1);
  t.equal(answered, false);
  t.equal(registry.byName("demo"), undefined, "not visible before it is durable");
  fake.hold.waiting.shift()!();
  await creating;
  const again = registryOn(fake, 2);
  t.equal(again.byName("demo")?.size, 1 << 30);
  t.same(again.list(), registry.list());
});

t.test("bad input is refused with its code and changes nothing", async (t) => {
  const fake = fakeStore();
  const registry = registryOn(fake);
  await registry.create({ name: "a", size: 8192 });
  const before = [...fake.durable.values()].map(String);
  for (const size of [0, -4096, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.equal(await codeOf(registry.create({ name: "b", size })), "SIZE_INVALID", String(size));
  }
  t.equal(await codeOf(registry.create({ name: "b", size: 4097 })), "SIZE_UNALIGNED");
  t.equal(await codeOf(registry.create({ name: "b", size: 2 ** 53 - 4096 })), "SIZE_TOO_LARGE");
  for (const name of ["", ".a", "a/b", "a b", "x".repeat(64), "ä"]) {
    t.equal(await codeOf(registry.create({ name, size: 4096 })), "NAME_INVALID", name);
  }
  t.equal(await codeOf(registry.create({ name: "a", size: 4096 })), "VOLUME_EXISTS");
  t.equal(
    await codeOf(registry.create({ name: "b", size: 4096, policy: { replicas: 2 } })),
    "REPLICAS_TOO_MANY",
  );
  t.equal(
    await codeOf(registry.create({ name: "b", size: 4096, policy: { stripeUnit: 5000 } })),
    "STRIPE_INVALID",
  );
  t.equal(
    await codeOf(registry.create({ name: "b", size: 4096, policy: { stripeCount: 65 } })),
    "STRIPE_INVALID",
  );
  t.equal(
    await codeOf(registry.create({ name: "b", size: 4096, description: "x".repeat(1025) })),
    "DESCRIPTION_TOO_LONG",
  );
  for (const minReplicas of [0, -1, 1.5, 2, Number.NaN, 1e300]) {
    const create = registry.create({ name: "b", size: 4096, policy: { minReplicas } });
    t.equal(await codeOf(create), "ARGUMENT_INVALID", String(minReplicas));
  }
  t.equal(await codeOf(registry.create({ name: "b", size: 4096, access: TOO_MANY })), "RECORD_TOO_LARGE");
  t.equal(await codeOf(registry.update("a", { access: TOO_MANY })), "RECORD_TOO_LARGE");
  t.equal(await codeOf(registry.resize("a", 4096)), "VOLUME_SHRINK");
  t.equal(await codeOf(registry.resize("b", 4096)), "VOLUME_UNKNOWN");
  t.equal(await codeOf(registry.rename("a", "-")), "NAME_INVALID");
  t.equal(await codeOf(registry.remove("zz")), "VOLUME_UNKNOWN");
  t.equal(await codeOf(registry.open("zz")), "VOLUME_UNKNOWN");
  t.same([...fake.durable.values()].map(String), before);
});

t.test("two volumes never get one name, whoever asks first", async (t) => {
  const fake = fakeStore();
  const registry = registryOn(fake);
  const codes = await Promise.all([1, 2, 3].map(() => codeOf(registry.create({ name: "same", size: 4096 }))));
  t.same(codes, ["no error", "VOLUME_EXISTS", "VOLUME_EXISTS"]);
  await registry.create({ name: "other", size: 4096 });
  t.equal(await codeOf(registry.rename("other", "same")), "VOLUME_EXISTS");
  await registry.rename("same", "new");
  t.equal(
    await codeOf(registry.create({ name: "same", size: 4096 })),
    "no error",
    "a name is free after a rename",
  );
});

t.test("an open volume is not removed, and growing is seen by those who hold it", async (t) => {
  const fake = fakeStore();
  const registry = registryOn(fake);
  const events: string[] = [];
  registry.onEvent((event: RegistryEvent) => events.push(`${event.kind} ${event.record.name}`));
  await registry.create({ name: "v", size: 8192 });
  const first = await registry.open("v");
  const second = await registry.open("v");
  t.equal(first.volume, second.volume, "one owner");
  t.equal(await codeOf(registry.remove("v")), "VOLUME_IN_USE");
  await registry.resize("v", 16384);
  t.equal(first.volume.sizeBytes, 16384);
  first.release();
  t.equal(await codeOf(registry.remove("v")), "VOLUME_IN_USE");
  second.release();
  t.throws(() => second.release());
  await registry.remove("v");
  t.equal(fake.durable.size, 0);
  t.equal(fake.dropped.length, 1);
  t.same(events, ["created v", "opened v", "changed v", "closed v", "removed v"]);
});

t.test("a removal that was cut off goes on at the next start", async (t) => {
  const fake = fakeStore();
  const registry = registryOn(fake);
  const { id } = await registry.create({ name: "v", size: 8192 });
  fake.hold.on = true;
  const removing = registry.remove("v");
  await new Promise((resolve) => setImmediate(resolve));
  fake.hold.waiting.shift()!();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(fake.durable.size, 1, "the tombstone is durable, the process dies here");
  fake.hold.on = false;
  const again = registryOn(fake, 2);
  t.equal(again.byId(id), undefined);
  t.equal(again.list().length, 0);
  await again.close();
  t.equal(fake.durable.size, 0);
  fake.hold.waiting.shift()!();
  await removing;
});

t.test("a record that cannot be read is an error, not a volume less", async (t) => {
  const fake = fakeStore();
  await registryOn(fake).create({ name: "v", size: 8192 });
  const [id, bytes] = [...fake.durable][0]!;
  const text = new TextDecoder().decode(bytes);
  const spoil = (from: string, to: string): void => {
    fake.durable.set(id, new TextEncoder().encode(text.replace(from, to)));
  };
  for (const [from, to] of [
    ['"format":1', '"format":2'],
    ['"live"', '"limbo"'],
    [`"id":${id}`, '"id":5'],
    ['"size":8192', '"size":-1'],
    ["{", "["],
  ] as const) {
    spoil(from, to);
    t.throws(() => registryOn(fake), { code: "RECORD_DAMAGED" }, `${from} → ${to}`);
  }
});
