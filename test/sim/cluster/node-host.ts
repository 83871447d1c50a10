/** One storage node of the simulated cluster: a device that stays, and the lives of the program on it. */
import { LZ4 } from "../../../lib/cluster/lz4.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { startRoutine } from "../../../lib/core/routine.js";
import type { ByteStream } from "../../../lib/core/stream.js";
import { RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { AcceptedRecord, NodeId, PeerId } from "../../../lib/replica/api.js";
import { NodeConfig } from "../../../lib/replica/config/follow.js";
import { ConfigSeat } from "../../../lib/replica/config/seat.js";
import type { ConfigSet } from "../../../lib/replica/config/set.js";
import { nodeIdOf } from "../../../lib/replica/greeting.js";
import { DeviceRegistration } from "../../../lib/replica/identity.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import { LocalPeer } from "../../../lib/replica/local-peer.js";
import { NodeCore } from "../../../lib/replica/node.js";
import { Packing } from "../../../lib/replica/packing.js";
import { NodePeer } from "../../../lib/replica/peer.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import { StabilityMap } from "../../../lib/replica/stability.js";
import type { StoreEnvironment } from "../../../lib/store/api.js";
import {
  type FormatOptions,
  formatStore,
  type MemberStore,
  metadataBytes,
  openStore,
  planFormat,
} from "../../../lib/store/index.js";
import type { Arena } from "../arena.js";
import { SimDevice } from "../device.js";
import type { DeviceImage } from "../device-pages.js";
import { SimPool, simMemory } from "../memory.js";
import type { SimProcess, SimWorld } from "../world.js";
import { type ClusterChecks, type Voter, withOther } from "./checks.js";
import type { Server, SimNetwork } from "./network.js";

export const CLUSTER_ID = Uint8Array.from({ length: 16 }, (_, i) => 0xc0 + i);
/** Room for all extents of a run's volumes, and for some that are being freed. */
const DEVICE_BYTES = 4 * MIB;
const DEVICE_BYTES_MANY = 8 * MIB;
/** Pool of one process. */
export const STATION_POOL_BYTES = 4 * MIB;
export const EXTENT_BLOCKS = 16;
/** Bytes per second that a node's scrub reads. */
export const SCRUB_PACE = 1024 * MIB;
const FIRST_BOOT = 1;

export interface NodeHostOptions {
  readonly configNodes: number;
  /** The name that a record claims; see AcceptorOptions. */
  readonly nameOf: (bytes: Uint8Array) => string | null;
  /** Extents of one page of an inventory. */
  readonly inventoryPage: number;
  /** Config nodes change: the set that the cluster begins with. */
  readonly firstSet?: ConfigSet;
  /** Volumes of the run. */
  readonly volumes: number;
  /** The device of a node answers nothing any more. */
  failed(node: NodeHost): void;
  /** The node tells its states to one that joins with this version of the set. */
  toldStates?(node: NodeHost, version: number): void;
}

/** Pool number `station` of a run. */
export function stationPool(station: number): SimPool {
  return new SimPool(STATION_POOL_BYTES, station * STATION_POOL_BYTES);
}

export function deviceIdOfNode(index: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => (i === 0 ? index + 1 : 0x10 + i));
}

export class NodeHost implements Voter {
  readonly index: number;
  readonly id: NodeId;
  readonly device: SimDevice;
  readonly #world: SimWorld;
  readonly #network: SimNetwork;
  readonly #checks: ClusterChecks;
  readonly #options: NodeHostOptions;
  #boot = FIRST_BOOT;
  process: SimProcess | null = null;
  core: NodeCore | null = null;
  store: MemberStore | null = null;
  /** Of the process that has the store. */
  pool: SimPool | null = null;
  /** Counts lives, so that a stale callback of an earlier one can be told. */
  life = 0;
  /** Openings that were registered, and as many as there were when the backup was made. */
  #registrations = 0;
  /** This opening was; before, its token may be on the device already. */
  #isRegistered = false;
  #backup: { readonly image: DeviceImage; readonly registrations: number } | null = null;
  /** The device as it was formatted. */
  #blank: DeviceImage | null = null;
  /** What was on the device before an old backup was put there by mistake; null: nothing was. */
  #truth: DeviceImage | null = null;
  quarantines = 0;
  #seat: ConfigSeat | null = null;
  #config: NodeConfig | null = null;
  /** It was among the config nodes once: an old backup of it is not told from it. */
  #hasVoted = false;
  /** Nobody starts it any more until there is peace. */
  isLost = false;

  constructor(
    world: SimWorld,
    arena: Arena,
    network: SimNetwork,
    checks: ClusterChecks,
    index: number,
    options: NodeHostOptions,
  ) {
    this.#world = world;
    this.#network = network;
    this.#checks = checks;
    this.#options = options;
    this.index = index;
    this.id = nodeIdOf(deviceIdOfNode(index));
    this.device = new SimDevice(world, arena, {
      sizeBytes: this.#capacity,
      alignBytes: 512,
      zeroGrainBytes: BLOCK_BYTES,
      latencyUs: 60,
      granuleBytes: BLOCK_BYTES,
    });
    if (options.firstSet !== undefined) checks.addVoter(this);
  }

  get #capacity(): number {
    return this.#options.volumes > 1 ? DEVICE_BYTES_MANY : DEVICE_BYTES;
  }

  get isConfig(): boolean {
    return this.#hasVoted || this.index < this.#options.configNodes;
  }

  /** Its seat among config nodes that change; null: it is dead, or they do not. */
  get seat(): ConfigSeat | null {
    return this.alive ? this.#seat : null;
  }

  get joinedWith(): number {
    const { seat } = this;
    if (seat === null || !this.serving || !seat.votesIn(seat.set.version)) return 0;
    return seat.set.nodes.find(({ node }) => node === this.id)?.since ?? 0;
  }

  acceptedOf(key: number): AcceptedRecord | null {
    return this.core?.acceptor.state(key).accepted ?? null;
  }

  /** Counts its power losses. */
  get boot(): number {
    return this.#boot;
  }

  get isFirstBoot(): boolean {
    return this.#boot === FIRST_BOOT;
  }

  get alive(): boolean {
    return this.process?.alive ?? false;
  }

  get serving(): boolean {
    return this.alive && this.core !== null;
  }

  /** What runs is not on the device that the cluster knows, though on the same host. */
  get isImpostor(): boolean {
    return this.#truth !== null;
  }

  #environment(process: SimProcess, pool: SimPool): StoreEnvironment {
    return {
      disk: this.device.open(process, pool),
      pool,
      clock: process,
      random: process,
      ticker: process,
      checksums: simMemory().checksums,
      bootId: `boot-${this.#boot}`,
      events: {
        bitRot: () => undefined,
        full: () => undefined,
        failed: () => this.#options.failed(this),
        lossy: () => undefined,
        adopted: () => undefined,
        extentChanged: () => undefined,
      },
    };
  }

  /** Whether its store has the extent of the volume. */
  has(volume: number, extent: number): boolean {
    let found = false;
    this.store?.inventory(volume, (_layer, one) => {
      if (one === extent) found = true;
    });
    return found;
  }

  /** Makes a store of the blank device; `done` when it has. */
  format(done: () => void): void {
    const options: FormatOptions = {
      deviceId: deviceIdOfNode(this.index),
      clusterId: CLUSTER_ID,
      capacityBytes: this.#capacity,
      extentBlocks: EXTENT_BLOCKS,
      logBytes: 64 * 1024,
      records: 16,
    };
    this.device.provisionedBelow = metadataBytes(planFormat(options));
    const process = this.#world.spawnBeside();
    this.process = process;
    const environment = this.#environment(process, stationPool(this.index));
    startRoutine(formatStore(environment, options), (error) => {
      if (error !== null) throw error;
      process.kill();
      this.#blank = this.device.image();
      done();
    });
  }

  /** A new life of the program. `started` when it listens; not at all when it dies before. */
  start(started: () => void = () => undefined): void {
    if (this.isLost) return;
    const process = this.#world.spawnBeside();
    const pool = stationPool(this.index);
    this.process = process;
    this.core = null;
    if (this.#isRegistered && !this.isConfig && this.#backup === null) this.#backUp();
    this.#isRegistered = false;
    this.life++;
    this.#network.hostIsBack(this.index);
    const stability = new StabilityMap();
    const environment = this.#environment(process, pool);
    const options = {
      path: `node${this.index}`,
      stability: this.#checks.watchStability(this.index, stability),
      preHotSlots: 2,
      coolAfterMs: 500,
      checkpointBatch: 4,
    };
    startRoutine(openStore(environment, options), (error, store) => {
      if (error !== null) {
        // Only where the device answers with errors; somebody tries again.
        if (this.device.writeFaults + this.device.readFaultsOfLife === 0) throw error;
        this.#options.failed(this);
        return;
      }
      this.#serve(process, pool, environment, store!, stability);
      started();
    });
  }

  #serve(
    process: SimProcess,
    pool: SimPool,
    environment: StoreEnvironment,
    store: MemberStore,
    stability: StabilityMap,
  ): void {
    const acceptor = this.#checks.watchPromises(
      this.index,
      new RecordAcceptor(store, { nameOf: this.#options.nameOf }),
    );
    this.#checks.nodeStarted(this.index, (volume) => acceptor.state(volume).promised.epoch);
    const submit = this.#checks.watch(this.index, store);
    const watched: MemberStore = withOther(store, { submit });
    const { checksums } = environment;
    // One node is of a version that does not know it.
    const packing = this.index === 1 ? {} : { packing: new Packing(LZ4) };
    const link = { pool, clock: process, ticker: process, checksums, ...packing };
    const { inventoryPage } = this.#options;
    const seat = this.#seatOn(store);
    const core = new NodeCore(
      { ...link, store: watched, stability, acceptor },
      { ...(seat === null ? { isConfig: this.isConfig } : { seat }), inventoryPage },
    );
    const peer = 1 + process.u32() * 2 ** 16 + (process.u32() & 0xffff);
    const network = this.#network.of({ host: this.index, process, pool });
    this.#config = seat === null ? null : new NodeConfig({ ...link, network, core, seat, peer });
    const config = this.#config?.voters ?? this.#configPeers(process, pool, core, peer);
    const lease = new LeaseKeeper(
      process,
      config.map((one) => one.peer),
      core,
    );
    core.useLease(lease);
    const putRight = core.reconciled.bind(core);
    core.reconciled = (volume) => {
      this.#checks.rules?.putRight(volume, this);
      putRight(volume);
    };
    const register = new RecordRegister(process, config);
    const registration = new DeviceRegistration({
      store,
      clock: process,
      random: process,
      register,
      node: core.id,
      peer,
      changed: (standing, why) => {
        if (standing === "registered" && !this.#isRegistered) {
          this.#isRegistered = true;
          this.#registrations++;
        }
        if (standing === "quarantined") this.quarantines++;
        this.#world.say(`node ${this.index} is ${standing} ${why}`);
        core.standingChanged(why);
      },
    });
    core.useRegistration(registration);
    core.onGateOpened = () => lease.renewNow();
    lease.start();
    this.#seat = seat;
    seat?.start();
    this.#config?.start({ register, lease });
    this.core = core;
    this.store = store;
    this.pool = pool;
    const server: Server = {
      host: this.index,
      process,
      pool,
      accept: (stream: ByteStream) => core.serve(stream),
    };
    this.#network.listen(this.id, server);
    registration.start();
  }

  /** The seat of this life, if config nodes change. */
  #seatOn(store: MemberStore): ConfigSeat | null {
    const { firstSet } = this.#options;
    if (firstSet === undefined) return null;
    const seat: ConfigSeat = new ConfigSeat(store, this.id, firstSet, () => {
      this.#hasVoted ||= seat.isConfig;
      if (this.#seat !== seat) return;
      this.#checks.seatChanged(this);
      this.#config?.changed();
    });
    const tells = seat.tellsStates.bind(seat);
    seat.tellsStates = (version) => {
      const is = tells(version);
      if (is) this.#options.toldStates?.(this, version);
      return is;
    };
    return seat;
  }

  /** Every config node as this process reaches it. */
  #configPeers(
    process: SimProcess,
    pool: SimPool,
    core: NodeCore,
    peer: PeerId,
  ): { readonly node: NodeId; readonly peer: LocalPeer | NodePeer }[] {
    const station = { host: this.index, process, pool };
    const link = { pool, clock: process, ticker: process, checksums: simMemory().checksums };
    return Array.from({ length: this.#options.configNodes }, (_, index) => {
      const node = nodeIdOf(deviceIdOfNode(index));
      if (index === this.index) return { node, peer: new LocalPeer(core, process) };
      const remote = new NodePeer(link, this.#network.of(station), { cluster: CLUSTER_ID, node, peer });
      remote.start();
      return { node, peer: remote };
    });
  }

  // ---- Old backups -------------------------------------------------------------------------------------

  /** Makes a copy of the device as it is. */
  #backUp(): void {
    this.#backup = { image: this.device.image(), registrations: this.#registrations };
  }

  /**
   * Starts on the backup instead of what the device had. False: there is none, or none that can be told from it,
   * because no opening was registered since.
   */
  startBackup(): boolean {
    const backup = this.#backup;
    if (backup === null || this.#truth !== null || backup.registrations === this.#registrations) return false;
    this.#startOn(backup.image);
    return true;
  }

  /** Starts on the device as it was formatted: somebody has wiped it. False: it was never registered, so nobody knows. */
  startBlank(): boolean {
    if (this.#truth !== null || this.#registrations === 0) return false;
    this.#startOn(this.#blank!);
    return true;
  }

  #startOn(image: DeviceImage): void {
    this.kill();
    this.#truth = this.device.image();
    this.device.restore(image);
    this.#checks.impostor(this.index, true);
    this.start();
  }

  /** Puts back what was there. */
  startTruth(): void {
    if (this.#truth === null) return;
    this.kill();
    this.device.restore(this.#truth);
    this.#truth = null;
    this.#backup = null;
    this.#checks.impostor(this.index, false);
    this.start();
  }

  /** kill −9: the kernel hangs up. */
  kill(): void {
    this.#die(true);
    this.device.crashInFlight();
  }

  /** The host goes dark: its peers hear nothing until it is back, and what was not synced may be gone. */
  powerLoss(): void {
    this.#die(false);
    this.#checks.powerLost(this.index);
    this.device.powerLoss();
    this.#boot++;
  }

  #die(loud: boolean): void {
    if (this.process === null) return;
    this.process.kill();
    this.#network.died(this.process, loud);
    this.core = null;
    this.store = null;
    this.#seat = null;
  }
}
