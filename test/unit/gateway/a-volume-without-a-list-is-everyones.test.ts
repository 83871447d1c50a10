/** Where others than this machine's can connect, a volume that names nobody is nobody's. */
import { connect } from "node:net";
import { ClientHandshake } from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { createGateway } from "../../../lib/gateway/index.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { RamVolume, registryOf } from "./support/ram-volume.js";
import { pump } from "./support/socket.js";

/** What a client gets that asks a gateway for its only volume, which has no access list. */
async function ask(t: Test, accessListsRequired: boolean): Promise<string> {
  const engine = openEngine({ kind: "auto", poolBytes: 16 * MIB });
  const volume = new RamVolume(engine.pool, engine, 4 * MIB);
  const gateway = createGateway({ engine, registry: registryOf(volume), accessListsRequired });
  t.teardown(async () => {
    await gateway.close();
    await engine.close();
  });
  const { address } = await gateway.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
  if (address.kind !== "tcp") throw new Error("not a TCP listener");
  const socket = connect(address.port, "127.0.0.1");
  t.teardown(() => socket.destroy());
  const handshake = new ClientHandshake({ exportName: volume.name });
  try {
    await pump(socket, handshake, () => handshake.state === "transmission");
  } catch (error) {
    return (error as Error).message;
  }
  return handshake.state;
}

void t.test("required: it is not there", async (t) => {
  t.match(await ask(t, true), /no export|unknown|not there/i);
});

void t.test("not required: it is open", async (t) => {
  t.equal(await ask(t, false), "transmission");
});
