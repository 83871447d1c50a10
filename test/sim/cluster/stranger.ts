/**
 * Somebody who says wrong things to nodes: of another cluster, to another node, with the number of an old session,
 * for an epoch that is another's. Nothing of it may be executed (invariant 14).
 */
import { ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import type { PeerId, ReplicaSession, SessionListener } from "../../../lib/replica/api.js";
import { NodeSession } from "../../../lib/replica/session.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { SimProcess, SimWorld } from "../world.js";
import { FORGED_LAYER } from "./checks.js";
import type { SimNetwork, Station } from "./network.js";
import { CLUSTER_ID, type NodeHost, stationPool } from "./node-host.js";
import { PROBE_VOLUME } from "./probe-owner.js";

/** Sessions of the stranger end by themselves after this time; soon where an owner is kept out meanwhile. */
const LIFE_MS = 3000;
const SHORT_LIFE_MS = 200;
/** No owner has come so far. */
const NUMBER_MAX = 2 ** 40;
const FAR_EPOCH = 2 ** 30;

export class Stranger {
  readonly #world: SimWorld;
  readonly #network: SimNetwork;
  readonly #nodes: readonly NodeHost[];
  readonly #random: Prng;
  readonly #pool: number;
  readonly #host: number;
  #process: SimProcess | null = null;
  #station: Station | null = null;
  refused = 0;

  constructor(world: SimWorld, network: SimNetwork, nodes: readonly NodeHost[], pool: number, host: number) {
    this.#world = world;
    this.#network = network;
    this.#nodes = nodes;
    this.#random = world.random.fork("stranger");
    this.#pool = pool;
    this.#host = host;
  }

  start(): void {
    this.#process = this.#world.spawnBeside();
    this.#station = { host: this.#host, process: this.#process, pool: stationPool(this.#pool) };
  }

  /** One attempt; `epoch`: what the volume's owner has, or has wanted. */
  forge(epoch: number): void {
    const process = this.#process!;
    const station = this.#station!;
    const target = this.#random.pick(this.#nodes);
    const claimed = this.#random.pick(this.#nodes);
    const wrongCluster = this.#random.chance(0.3);
    const options = {
      cluster: wrongCluster ? CLUSTER_ID.map((byte) => byte ^ 1) : CLUSTER_ID,
      node: this.#random.chance(0.5) ? target.id : claimed.id,
      peer: 1 + this.#random.u32(),
      number: this.#random.below(3),
    };
    let mayOpen = false;
    const { pool } = station;
    const link = { pool, clock: process, ticker: process, checksums: simMemory().checksums };
    const listener: SessionListener = {
      sessionOpened: (session) => {
        if (!mayOpen) throw new Violation("I14", `node ${target.index} greeted a stranger`);
        this.#operate(session, epoch);
      },
      sessionLost: () => {
        if (!mayOpen) this.refused++;
      },
    };
    this.#network.of(station).dial(target.id, (stream) => {
      if (stream === null) return;
      // Where the target is looked for another node may answer: directories get mixed up.
      const reached = this.#nodes[this.#network.server(target.id)!.host]!;
      mayOpen = !wrongCluster && options.node === reached.id && options.number > 0;
      const session = new NodeSession(link, options, stream, listener);
      process.setTimer(LIFE_MS, () => session.close());
    });
  }

  /** As an owner, over a session that is newer than all of his, for an epoch that nobody has ever had. */
  pretend(peer: PeerId, epoch: number): void {
    const target = this.#random.pick(this.#nodes);
    const listener: SessionListener = {
      sessionOpened: (session) => {
        this.#submit(session, () => FAR_EPOCH + epoch + this.#random.below(3));
      },
      sessionLost: () => undefined,
    };
    this.#dial(target, { peer, number: NUMBER_MAX }, listener, SHORT_LIFE_MS);
  }

  /** Twice as the same peer, the second time with a number that is not higher than the first one. */
  repeat(): void {
    const target = this.#random.pick(this.#nodes);
    const peer = 1 + this.#random.u32();
    const number = this.#random.between(1, 3);
    const { life } = target;
    const { breaks } = this.#network;
    let isOpen = false;
    const second: SessionListener = {
      sessionOpened: () => {
        const isDisturbed = !target.serving || target.life !== life || this.#network.breaks !== breaks;
        if (isOpen && !isDisturbed)
          throw new Violation("I14", `node ${target.index} greeted a number that was used`);
      },
      sessionLost: () => {
        this.refused++;
      },
    };
    const first: SessionListener = {
      sessionOpened: () => {
        isOpen = true;
        const again = this.#random.between(1, number);
        this.#dial(target, { peer, number: again }, second, SHORT_LIFE_MS);
      },
      sessionLost: () => {
        isOpen = false;
      },
    };
    this.#dial(target, { peer, number }, first, 2 * LIFE_MS);
  }

  #dial(
    target: NodeHost,
    as: { readonly peer: PeerId; readonly number: number },
    listener: SessionListener,
    lifeMs: number,
  ): void {
    const process = this.#process!;
    const station = this.#station!;
    const { pool } = station;
    const link = { pool, clock: process, ticker: process, checksums: simMemory().checksums };
    const options = { cluster: CLUSTER_ID, node: target.id, ...as };
    this.#network.of(station).dial(target.id, (stream) => {
      if (stream === null) return;
      const session = new NodeSession(link, options, stream, listener);
      process.setTimer(lifeMs, () => session.close());
    });
  }

  /** Operations for an epoch that was promised to somebody else, or to nobody. */
  #operate(session: ReplicaSession, epoch: number): void {
    this.#submit(session, () => epoch + this.#random.below(3) - 1);
  }

  #submit(session: ReplicaSession, epochOf: () => number): void {
    for (const kind of [ExtentOpKind.Zero, ExtentOpKind.Free, ExtentOpKind.Map, ExtentOpKind.Flush]) {
      const op = new ExtentOp();
      op.kind = kind;
      op.volume = PROBE_VOLUME;
      op.layer = FORGED_LAYER;
      op.blocks = 1;
      op.epoch = epochOf();
      op.generation = 2 ** 40;
      op.listener = {
        extentDone: () => {
          if (op.status === Status.Ok) throw new Violation("I14", `a stranger's operation ${kind} was done`);
          this.refused++;
        },
      };
      session.submit(op);
    }
  }
}
