import t from "tap";
import { Command, NbdClient } from "./support/nbd-client.js";
import { requires } from "./support/requirements.js";
import { LaminaServer, pause, processMemory } from "./support/server.js";
import { until } from "./support/until.js";
import { VOLUME } from "./support/volume.js";

const MIB = 1 << 20;
const CONNECTIONS = 4;
const REQUESTS = 128;
const LENGTH = 32 * MIB;
/** The default pool, and what the program itself may take: code, heap, entry tables. */
const POOL_BYTES = 256 * MIB;
const OVERHEAD_BYTES = 256 * MIB;
const ROUNDS_OF_GROWTH = 20;

t.test("4 connections with 128 requests of 32 MiB in flight", requires({ lamina: true }), async (t) => {
  const server = new LaminaServer({ capacity: "2G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "256M");
  const clients: NbdClient[] = [];
  for (let i = 0; i < CONNECTIONS; i++)
    clients.push(await NbdClient.connect(server.host, server.port, VOLUME));
  t.teardown(() => {
    for (const client of clients) client.destroy();
  });

  // Writes first: real data, so that the reads below carry bytes and not holes.
  const payload = Buffer.alloc(LENGTH, 0x5a);
  const writes = clients.flatMap((client, i) =>
    Array.from({ length: 4 }, (_, n) => client.write(((i * 4 + n) % 8) * LENGTH, payload)),
  );
  await Promise.all(writes);

  // 16 GiB are asked for by readers that take nothing.
  for (const client of clients) {
    client.pauseReading();
    for (let n = 0; n < REQUESTS; n++) {
      // Never answered: the connection is dropped below.
      client.request(Command.READ, (n % 8) * LENGTH, LENGTH, 0, Buffer.alloc(0)).catch(() => {});
    }
  }
  for (let i = 0; i < ROUNDS_OF_GROWTH; i++) await pause(100);

  // A reader that takes what it asked for is served beside those that do not.
  const reader = await NbdClient.connect(server.host, server.port, VOLUME);
  t.same(await reader.read(LENGTH, 4096), payload.subarray(0, 4096), "others are served meanwhile");
  const peak = processMemory(server.pid, "VmHWM");
  t.ok(peak <= POOL_BYTES + OVERHEAD_BYTES, `${Math.round(peak / MIB)} MiB at the peak`);

  for (const client of clients) client.destroy();
  await until("the server lets go of dead connections", async () => {
    const bytes = await reader.read(0, LENGTH);
    return bytes.length === LENGTH;
  });
  await reader.close();
  t.ok(processMemory(server.pid, "VmHWM") <= POOL_BYTES + OVERHEAD_BYTES);
});
