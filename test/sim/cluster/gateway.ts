/** A gateway of the simulated cluster: one process with its links and its lease, and the volumes that it may own. */
import { LZ4 } from "../../../lib/cluster/lz4.js";
import type { NodeId, PeerId } from "../../../lib/replica/api.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import type { OwnerEnvironment } from "../../../lib/replica/owner/api.js";
import { PeerLinks } from "../../../lib/replica/owner/peer-links.js";
import { Packing } from "../../../lib/replica/packing.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import type { SimPool } from "../memory.js";
import { simMemory } from "../memory.js";
import type { SimProcess } from "../world.js";
import { type WatchedVoter, watchedVoter } from "./checks.js";
import { CLUSTER_ID, EXTENT_BLOCKS } from "./node-host.js";
import type { ProbeHost } from "./probe-owner.js";
import type { VolumeRegisters } from "./registers.js";
import { VolumeOwner, volumeNumber } from "./volume-owner.js";

/** What a run tells its gateways, and hears of them. */
export interface GatewayHost extends ProbeHost {
  /** Most ms after which a gateway wants a volume back that it has lost. */
  readonly patienceMs: number;
  /** How often changes of a volume need more copies than one. */
  readonly manyNeeded: number;
  /** One for each volume. */
  readonly clients: readonly VolumeRegisters[];
  /** Node of which single blocks may be lost; −1: none. */
  readonly sickNode: number;
  /** Blocks of one node's device may rot, or fail. */
  readonly isRotten: boolean;
  /** So many nodes have no seat in a new volume, at least. */
  readonly spares: number;
  /** Every node is a member of a new volume, and has a copy of each extent. */
  readonly isOnAll: boolean;
  /** Somebody serves volume number `index`, as far as he knows. */
  isVolumeServed(index: number): boolean;
  /** Somebody has begun to serve a volume. */
  servingBegan(volume: number): void;
  /** A member has joined the in-sync ones of a volume. */
  joined(): void;
}

export class Gateway {
  readonly process: SimProcess;
  readonly host: number;
  readonly peerId: PeerId;
  readonly volumes: readonly VolumeOwner[];
  readonly #links: PeerLinks;
  readonly #lease: LeaseKeeper;

  constructor(at: GatewayHost, host: number, process: SimProcess, pool: SimPool) {
    this.host = host;
    this.process = process;
    const random = at.world.random.fork("owner");
    const peer = 1 + random.u32() * 2 ** 16 + random.below(2 ** 16);
    this.peerId = peer;
    const { checksums } = simMemory();
    const link = { pool, clock: process, ticker: process, checksums, packing: new Packing(LZ4) };
    const ids = at.nodes.map(({ id }) => id);
    const network = at.network.of({ host, process, pool });
    const voter = (id: NodeId): WatchedVoter => {
      const node = at.nodes.find((one) => one.id === id)!;
      return watchedVoter(at.checks, node, this.#links.peer(id), () => sets?.set.version ?? 0);
    };
    const sets = at.sets?.follow(host, voter) ?? null;
    const options = { cluster: CLUSTER_ID, peer, ...(sets === null ? {} : { sets }) };
    this.#links = new PeerLinks(link, network, options, ids);
    const config = sets?.set.nodes.map(({ node }) => node) ?? ids.slice(0, at.configNodes);
    const voters = config.map((node) => ({ node, peer: voter(node) }));
    const register = new RecordRegister(process, voters);
    this.#lease = new LeaseKeeper(
      process,
      voters.map((one) => one.peer),
      {
        watched: () => this.volumes.flatMap(({ serving, volume }) => (serving ? [volume] : [])),
        promised: (volume, promised) => {
          this.volumes.find((one) => one.volume === volume)?.heardOf(promised);
        },
      },
    );
    sets?.tell({ register, lease: this.#lease });
    const environment: OwnerEnvironment = {
      pool,
      clock: process,
      random: process,
      links: this.#links,
      register,
      lease: this.#lease,
      self: { peer, node: null, incarnation: 0 },
      extentBlocks: EXTENT_BLOCKS,
      nameOf: (id) => `n${ids.indexOf(id)}`,
    };
    const station = { host, process, pool, environment, lease: this.#lease };
    this.volumes = at.clients.map((clients, index) => {
      return new VolumeOwner(at, station, clients, volumeNumber(index), random.fork("volume"));
    });
  }

  start(): void {
    this.#links.start();
    this.#lease.start();
    for (const volume of this.volumes) volume.start();
  }

  get serving(): boolean {
    return this.volumes.some(({ serving }) => serving);
  }
  /** It wants a volume that it does not own yet. */
  get isActivating(): boolean {
    return this.volumes.some(({ activating }) => activating);
  }
  get epoch(): number {
    return Math.max(...this.volumes.map(({ epoch }) => epoch));
  }
  get waiting(): string {
    return this.volumes.map(({ waiting }) => waiting).join("; ");
  }
  get activations(): number {
    return this.#sum(({ activations }) => activations);
  }
  get shrunk(): number {
    return this.#sum(({ shrunk }) => shrunk);
  }
  get rebuilt(): number {
    return this.#sum(({ rebuilt }) => rebuilt);
  }
  get replaced(): number {
    return this.#sum(({ replaced }) => replaced);
  }
  get grown(): number {
    return this.#sum(({ grown }) => grown);
  }

  #sum(of: (volume: VolumeOwner) => number): number {
    return this.volumes.reduce((sum, volume) => sum + of(volume), 0);
  }

  /** Wants every volume that it does not own. */
  activate(): void {
    for (const volume of this.volumes) volume.activate();
  }
}
