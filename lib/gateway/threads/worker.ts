/**
 * A connection thread: an engine of its own over its part of the pool, and the gateway as it runs everywhere. Its
 * volumes are remote ones. Started by group.ts.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { assert } from "../../core/assert.js";
import { CipherBudget } from "../../uring/cipher-memory.js";
import { openEngine } from "../../uring/engine.js";
import { createGateway } from "../index.js";
import type { OtherConnections } from "../server.js";
import { createTlsOf, type ReloadableTls } from "../tls.js";
import { Channel } from "./channel.js";
import type { ThreadOrder, ToOwner, ToThread } from "./messages.js";
import { writeNumbers } from "./numbers.js";
import { RemoteRegistry } from "./remote-registry.js";

/** `port` leads to the owner. */
function serve(order: ThreadOrder, port: MessagePort): void {
  const engine = openEngine(order.engine);
  const links = engine.threads;
  assert(links !== null, "connection threads run on the ring");
  const channel = new Channel(order.channel);
  const tell = (message: ToOwner): void => port.postMessage(message);
  const registry = new RemoteRegistry(
    order.records,
    {
      channel,
      ticker: engine,
      ringOwner: () => links.ring(order.ownerBell),
      beforeSleep: () => writeNumbers(channel.numbers, gateway.server, engine),
    },
    tell,
  );
  const tls: ReloadableTls | null =
    order.tls === null
      ? null
      : createTlsOf(order.tls.mode, order.tls.credentials, new CipherBudget(engine.pool));
  const elsewhere = new Elsewhere(tell);
  const gateway = createGateway({
    engine,
    registry,
    counters: channel.counters,
    elsewhere,
    connectionsMax: order.connectionsMax,
    handshakesMax: order.handshakesMax,
    onConnectionLost: (peer, volume, reason) => tell({ kind: "lost", peer, volume, reason }),
    ...(order.defaultExport === undefined ? {} : { defaultExport: order.defaultExport }),
    ...(tls === null ? {} : { tls }),
  });
  links.addMailbox(registry.volumes);
  const close = async (): Promise<void> => {
    await gateway.drain("close");
    tell({ kind: "drained" });
    await gateway.close();
    writeNumbers(channel.numbers, gateway.server, engine);
    await engine.close();
    port.close();
  };
  port.on("message", (message: ToThread) => {
    switch (message.kind) {
      case "accept":
        gateway.server.accept(links.adopt(message.fd));
        break;
      case "event":
        registry.heard(message.event);
        break;
      case "opened":
        registry.opened(message);
        break;
      case "refused":
        registry.refused(message.ticket, message.refusal);
        break;
      case "retire":
        gateway.server.retire(message.volume, () => tell({ kind: "retired", ticket: message.ticket }));
        break;
      case "admitted":
        elsewhere.admitted(message.ticket);
        break;
      case "all-quiet":
        elsewhere.allQuiet();
        break;
      case "credentials":
        tls?.use(message.credentials);
        break;
      case "close":
        void close();
        break;
    }
  });
  tell({ kind: "ready", bell: links.bell });
}

/** The connections of the other threads. */
class Elsewhere implements OtherConnections {
  readonly #tell: (message: ToOwner) => void;
  readonly #waiting = new Map<number, () => void>();
  #ticket = 0;
  #whenQuiet: () => void = () => {};

  constructor(tell: (message: ToOwner) => void) {
    this.#tell = tell;
  }

  retire(volume: number, done: () => void): void {
    const ticket = this.#ticket++;
    this.#waiting.set(ticket, done);
    this.#tell({ kind: "admit", ticket, volume });
  }

  whenOnlyHandshakes(then: () => void): void {
    this.#whenQuiet = then;
    this.#tell({ kind: "quiet" });
  }

  allQuiet(): void {
    this.#whenQuiet();
  }

  admitted(ticket: number): void {
    const done = this.#waiting.get(ticket);
    assert(done !== undefined, "the owner answers what was asked, once");
    this.#waiting.delete(ticket);
    done();
  }
}

assert(parentPort !== null, "a connection thread is started by its owner");
serve(workerData as ThreadOrder, parentPort);
