/**
 * A storage node of a cluster around its device: who may talk to it, its lease, and the space of removed volumes.
 *
 * Invariant: nothing of the node protocol is taken before the config nodes are known.
 */
import type { ByteStream } from "../core/stream.js";
import { RecordAcceptor } from "../replica/acceptor.js";
import type { NodeId, PeerId } from "../replica/api.js";
import { NodeConfig } from "../replica/config/follow.js";
import { ConfigSeat, OWN_SEAT_KEY } from "../replica/config/seat.js";
import type { ConfigSet } from "../replica/config/set.js";
import { nodeIdOf } from "../replica/greeting.js";
import { DeviceRegistration, decodeDevice, isRetired, type Standing } from "../replica/identity.js";
import { LeaseKeeper } from "../replica/lease.js";
import { NodeCore } from "../replica/node.js";
import type { Packing } from "../replica/packing.js";
import { RecordRegister } from "../replica/register.js";
import type { StabilityMap } from "../replica/stability.js";
import type { MemberStore } from "../store/index.js";
import type { Engine } from "../uring/api.js";
import { Board } from "./care/board.js";
import { Catalogue, nameClaimed } from "./catalogue.js";
import { type DeviceAnswer, encodeDescription, encodeRecords, type NodeDescription } from "./description.js";
import { ClusterNetwork, type DialEnvironment, type NodePlace } from "./dial.js";
import { encodeHeld } from "./held-extents.js";
import type { ClusterKey } from "./key.js";
import { linkEnvironment } from "./link-environment.js";
import type { LinkTls } from "./link-tls.js";
import { lossesOf, lossesOfNobody } from "./losses.js";
import { addressIn, placesOf } from "./places.js";
import { Porter } from "./prelude.js";
import { rotOf } from "./rot.js";
import { type SweptNode, sweep } from "./sweep.js";

/** How often a node looks for extents that it holds for nothing. */
const SWEEP_MS = 5000;

export interface NodeSideOptions {
  readonly engine: Engine;
  /** Ways to the other nodes. */
  readonly dial: DialEnvironment;
  readonly store: MemberStore;
  /** The one that the store was opened with. */
  readonly stability: StabilityMap;
  readonly key: ClusterKey;
  /** Null: links are plain. */
  readonly tls: LinkTls | null;
  /** Null: background copies are not packed. */
  readonly packing: Packing | null;
  readonly version: string;
  readonly startedAt: number;
  /** Where others reach it, HOST:PORT. Asked when it serves. */
  readonly place: () => string;
  /** Somebody was turned away: without the key, or by TLS. */
  readonly refused: (peer: string, why: string) => void;
  /** What the config nodes think of this device has changed; `why` is for people. */
  readonly stands: (standing: Standing, why: string) => void;
  /** Other nodes are the config nodes now; the device knows it. */
  readonly configChanged: (set: ConfigSet) => void;
  /** The extents of a volume that was removed, or has no seat here any more, were given back. */
  readonly swept: (volume: number) => void;
}

export class NodeSide {
  readonly node: NodeId;
  readonly #options: NodeSideOptions;
  readonly #porter: Porter;
  readonly #acceptor: RecordAcceptor;
  /** As it was written down before the device's own page was read. */
  #learned: ConfigSet | null = null;
  #seat: ConfigSeat | null = null;
  #config: NodeConfig | null = null;
  #core: NodeCore | null = null;
  #lease: LeaseKeeper | null = null;
  #registration: DeviceRegistration | null = null;
  #catalogue: Catalogue | null = null;
  #network: ClusterNetwork | null = null;
  #stopped = false;
  /** Gates that were opened so far. */
  #openings = 0;
  /** Volumes in which it may lack something, when it looked last. */
  #losses: readonly number[] = [];

  constructor(options: NodeSideOptions) {
    const { engine, store, key, tls } = options;
    this.#options = options;
    this.node = nodeIdOf(store.identity.deviceId);
    this.#acceptor = new RecordAcceptor(store, { nameOf: nameClaimed });
    const board = new Board(() => engine.clock.now());
    this.#porter = new Porter(engine, { key, tls }, this.node, {
      session: (stream) => this.#session(stream),
      describe: () => encodeDescription(this.describe()),
      records: () => this.#records(),
      devices: () => this.#devices(),
      extents: () => encodeHeld(store),
      board: (note) => board.post(note),
      refused: (stream, why) => options.refused(peerText(stream), why),
    });
  }

  /** A connection has come. */
  accept(stream: ByteStream): void {
    this.#porter.admit(stream);
  }

  get core(): NodeCore | null {
    return this.#core;
  }

  /** What the config nodes think of this device. */
  get standing(): Standing {
    return this.#registration?.standing ?? "unknown";
  }

  get catalogue(): Catalogue | null {
    return this.#catalogue;
  }

  get network(): ClusterNetwork | null {
    return this.#network;
  }

  /** The config nodes; none while they are not known. */
  get config(): readonly NodePlace[] {
    return this.#set === null ? [] : placesOf(this.#set);
  }

  get #set(): ConfigSet | null {
    return this.#seat?.set ?? this.#learned;
  }

  /** The device has been in this cluster before: it knows its config nodes, whatever else is written down. */
  get isKnownDevice(): boolean {
    return this.#options.store.records().has(OWN_SEAT_KEY);
  }

  /** Whether there is a session to another config node; null: it is this one. */
  isLinked(node: NodeId): boolean | null {
    return this.#config?.isLinked(node) ?? (node === this.node ? null : false);
  }

  /** What is written down may be told, and counts for others who form the cluster; sessions are for `start`. */
  learned(set: ConfigSet): void {
    this.#learned = set;
  }

  /** The config nodes are known and written down: the node serves. */
  start(peer: PeerId): void {
    const { engine, dial, store, stability, key, packing } = this.#options;
    const { clock } = engine;
    const link = linkEnvironment(engine, packing);
    const seat = new ConfigSeat(store, this.node, this.#learned!, () => this.#seatChanged());
    this.#seat = seat;
    const core = new NodeCore({ ...link, store, stability, acceptor: this.#acceptor }, { seat });
    const network = new ClusterNetwork(dial, key, (node) => addressIn(seat.set, node));
    const config = new NodeConfig({ ...link, network, core, seat, peer });
    this.#config = config;
    const { voters } = config;
    const register = new RecordRegister(clock, voters);
    const lease = new LeaseKeeper(
      clock,
      voters.map((voter) => voter.peer),
      core,
    );
    core.useLease(lease);
    const registration = new DeviceRegistration({
      store,
      clock,
      random: engine.random,
      register,
      node: this.node,
      peer,
      place: this.#options.place(),
      changed: (standing, why) => {
        core.standingChanged(why);
        this.#options.stands(standing, why);
      },
    });
    core.useRegistration(registration);
    core.onGateOpened = () => {
      this.#openings++;
      lease.renewNow();
    };
    lease.start();
    seat.start();
    config.start({ register, lease });
    registration.start();
    this.#registration = registration;
    this.#network = network;
    this.#core = core;
    this.#lease = lease;
    this.#catalogue = new Catalogue(dial, key, () => this.config);
    this.#sweepLater();
    this.#seatChanged();
  }

  /** What is on the device is written down beside it, for the next start. */
  #seatChanged(): void {
    const seat = this.#seat;
    if (seat === null || this.#stopped) return;
    this.#config?.changed();
    if (!seat.isSettled || seat.set.version === this.#learned!.version) return;
    this.#learned = seat.set;
    this.#options.configChanged(seat.set);
  }

  close(): void {
    this.#stopped = true;
    this.#porter.close();
    this.#lease?.stop();
    this.#registration?.stop();
    this.#config?.stop();
    this.#core?.close();
  }

  describe(): NodeDescription {
    const { version, startedAt, store } = this.#options;
    const stats = store.stats();
    return {
      version,
      startedAt,
      set: this.#set,
      votes: this.#seat?.votesIn(this.#seat.set.version) ?? false,
      standing: this.standing,
      sessions: this.#core?.sessions ?? 0,
      capacityBytes: stats.slots * stats.slotBytes,
      usedBytes: stats.liveSlots * stats.slotBytes,
      lossy: store.identity.lossy,
      failed: stats.failed,
      rot: rotOf(store),
      losses: [...this.#losses],
    };
  }

  #session(stream: ByteStream): void {
    if (this.#core !== null && !this.#stopped) {
      this.#core.serve(stream);
      return;
    }
    stream.setListener(NOBODY);
    stream.close();
  }

  #records(): string {
    const records = this.#acceptor.volumes().flatMap((volume) => {
      const { accepted } = this.#acceptor.state(volume);
      return accepted === null ? [] : [{ volume, accepted }];
    });
    return encodeRecords(records);
  }

  #devices(): string {
    const known = this.#acceptor
      .devices()
      .flatMap(({ accepted: { ballot, generation, bytes } }): DeviceAnswer[] => {
        const device = decodeDevice(bytes);
        if (device === null) return [];
        const { node, place } = device;
        return [{ node, place, retired: isRetired(device), epoch: ballot.epoch, generation }];
      });
    return JSON.stringify(known);
  }

  // ---- What is held for nothing ------------------------------------------------------------------------

  #sweepLater(): void {
    const { clock } = this.#options.engine;
    clock.setTimer(SWEEP_MS, () => {
      if (this.#stopped) return;
      this.#sweep()
        // No majority was heard: later.
        .catch(() => undefined)
        .finally(() => {
          if (!this.#stopped) this.#look();
          this.#sweepLater();
        });
    });
  }

  async #sweep(): Promise<void> {
    for (const volume of await sweep(this.#swept)) this.#options.swept(volume);
    // What may be lacked has to do with records also where nothing is held.
    if (this.#options.store.identity.lossy) await this.#catalogue!.refresh();
  }

  /** By the records that were heard of last. */
  #look(): void {
    const core = this.#core!;
    const known = [...this.#catalogue!.volumes.values()];
    const isLossy = this.#options.store.identity.lossy;
    const lossy = { node: this.node, isLossy, isLossyIn: (volume: number) => core.isLossyIn(volume) };
    for (const volume of lossesOfNobody(lossy, known)) core.reconciled(volume);
    this.#losses = lossesOf(
      lossy,
      known.map(({ record }) => record),
    );
  }

  get #swept(): SweptNode {
    const core = this.#core!;
    const catalogue = this.#catalogue!;
    return {
      node: this.node,
      store: this.#options.store,
      mayVote: () => core.mayVote,
      watched: () => core.watched(),
      openings: () => this.#openings,
      promise: (volume, ballot, done) => core.promise(volume, ballot, done),
      volumes: () => catalogue.refresh().then(() => catalogue.volumes),
      isStopped: () => this.#stopped,
    };
  }
}

function peerText({ peer }: ByteStream): string {
  return peer.family === "unix" ? "this machine" : `${peer.host}:${peer.port}`;
}

const NOBODY = { streamReceived(): void {}, streamSent(): void {}, streamClosed(): void {} };
