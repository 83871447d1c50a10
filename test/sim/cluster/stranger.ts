/**
 * Somebody who says wrong things to nodes: of another cluster, to another node, with the number of an old session,
 * for an epoch that is another's. Nothing of it may be executed (invariant 14).
 */
import { ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import type { ReplicaSession, SessionListener } from "../../../lib/replica/api.js";
import { NodeSession } from "../../../lib/replica/session.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { SimProcess, SimWorld } from "../world.js";
import { FORGED_LAYER } from "./checks.js";
import type { SimNetwork, Station } from "./network.js";
import { CLUSTER_ID, type NodeHost, stationPool } from "./node-host.js";
import { PROBE_VOLUME } from "./probe-owner.js";

/** Sessions of the stranger end by themselves after this time. */
const LIFE_MS = 3000;

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

  /** Operations for an epoch that was promised to somebody else, or to nobody. */
  #operate(session: ReplicaSession, epoch: number): void {
    for (const kind of [ExtentOpKind.Zero, ExtentOpKind.Free, ExtentOpKind.Map, ExtentOpKind.Flush]) {
      const op = new ExtentOp();
      op.kind = kind;
      op.volume = PROBE_VOLUME;
      op.layer = FORGED_LAYER;
      op.blocks = 1;
      op.epoch = epoch + this.#random.below(3) - 1;
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
