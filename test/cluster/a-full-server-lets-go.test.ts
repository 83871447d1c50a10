/**
 * A write that waits for space waits for as long as its server lives. It must not keep the server alive: neither a stop
 * nor a replacement would ever come to its end.
 */
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { NbdClient, NbdError } from "../interop/support/nbd-client.js";
import { requires } from "../interop/support/requirements.js";
import { LaminaServer } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { VOLUME } from "../interop/support/volume.js";

const MIB = 1 << 20;
const PIECE = Buffer.alloc(MIB, 5);

interface Filled {
  readonly server: LaminaServer;
  /** How the write that waits has ended; null while it waits. */
  readonly waiting: { end: "answered" | "refused" | "disconnected" | null };
  /** Bytes before the write that waits. */
  readonly written: number;
}

/** A server whose store is full, and a client that has a write waiting. */
async function filled(t: Test): Promise<Filled> {
  const server = new LaminaServer({ capacity: "64M", args: ["--redis", "none", "--pool", "16M"] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "256M");
  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  t.teardown(() => client.destroy());
  for (let written = 0; ; written += MIB) {
    const waiting: Filled["waiting"] = { end: null };
    client.write(written, PIECE).then(
      () => {
        waiting.end = "answered";
      },
      (error: unknown) => {
        waiting.end = error instanceof NbdError ? "refused" : "disconnected";
      },
    );
    const full = (): boolean => /is full: writes to new blocks wait/.test(server.program.stderr);
    await until("it is answered, or waits for space", () => Promise.resolve(waiting.end !== null || full()));
    // What has found its place before the store was full is answered all the same.
    if (full()) await sleep(500);
    if (waiting.end === null) return { server, waiting, written };
  }
}

t.test("it is replaced, and the write is asked for again", requires({ lamina: true }), async (t) => {
  const { server, waiting, written } = await filled(t);
  t.ok(written > 16 * MIB, "the store was filled");
  await server.replace();
  await until("the client knows", () => waiting.end !== null);
  t.equal(waiting.end, "disconnected", "no error, and no answer that is not true");
  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  t.ok((await client.read(written - MIB, MIB)).equals(PIECE), "what was acknowledged");
  const again = client.write(written, PIECE);
  await client.trim(0, 16 * MIB);
  await again;
  await client.close();
  await server.stop();
  const { code, stdout } = await server.fsck();
  t.equal(code, 0, stdout);
});
