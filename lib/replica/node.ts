/**
 * A storage node: one device behind gates, for any number of sessions (docs/architecture/replica.md).
 *
 * Invariants
 *  1. Nothing reaches the store but what a gate has let in (invariants 9, 14).
 *  2. A session is greeted only when every older session of its peer is cut and what those had in the store has
 *     ended; so nothing that was sent before can land after what is sent now.
 *  3. Operations never wait for space inside the store: a full device cannot hold a promise up.
 *  4. A device that is not registered as the one that the cluster knows neither executes an operation, nor promises,
 *     nor votes about a volume; one that is quarantined greets nobody.
 */
import { assert } from "../core/assert.js";
import { extentSeed, volumeSeed } from "../core/checksum.js";
import { EXTENT_OP_BLOCKS_MAX, ExtentFlag, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { Status } from "../core/status.js";
import type { ByteStream } from "../core/stream.js";
import type { MemberStore } from "../store/api.js";
import type { RecordAcceptor } from "./acceptor.js";
import type {
  AcceptAnswer,
  AcceptedRecord,
  Ballot,
  InventoryEntry,
  LeaseView,
  LinkEnvironment,
  NodeGreeting,
  NodeId,
  PeerId,
  PromiseAnswer,
} from "./api.js";
import type { ToldState } from "./config/copy.js";
import type { ConfigSeat } from "./config/seat.js";
import { CONFIG_SET_KEY } from "./config/set.js";
import { VolumeGate } from "./gate.js";
import { nodeIdOf, targetOf } from "./greeting.js";
import { type DeviceRegistration, isDeviceKey } from "./identity.js";
import type { LeaseClient } from "./lease.js";
import {
  INVENTORY_PAGE,
  NODE_SESSIONS_MAX,
  STABILITY_ENTRIES_MAX,
  WINDOW_BYTES,
  WINDOW_REQUESTS,
} from "./limits.js";
import { NodeRequest } from "./node-request.js";
import { ServedSession } from "./served-session.js";
import type { StabilityMap } from "./stability.js";
import { blocksMatch } from "./wire.js";

/** `pool` is the node's own: what lives in it waits for nothing but this device and the peers' reading. */
export interface NodeEnvironment extends LinkEnvironment {
  readonly store: MemberStore;
  /** The one that the store was opened with. */
  readonly stability: StabilityMap;
  readonly acceptor: RecordAcceptor;
}

export interface NodeOptions {
  /** It answers Accept and Renew, in a cluster whose config nodes never change. */
  readonly isConfig?: boolean;
  /** Its seat among config nodes that may change. */
  readonly seat?: ConfigSeat;
  /** Extents of one page of an inventory, at most INVENTORY_PAGE. */
  readonly inventoryPage?: number;
}

interface PeerState {
  /** Highest session number that was heard. */
  highest: number;
  readonly sessions: Set<ServedSession>;
}

export class NodeCore implements LeaseClient {
  readonly environment: NodeEnvironment;
  readonly acceptor: RecordAcceptor;
  readonly seat: ConfigSeat | null;
  readonly inventoryPage: number;
  readonly #isFixedConfig: boolean;
  readonly cluster: Uint8Array;
  readonly id: NodeId;
  /** What messages of this life carry. */
  readonly target: number;
  readonly #store: MemberStore;
  readonly #gates = new Map<number, VolumeGate>();
  readonly #sessions = new Set<ServedSession>();
  readonly #peers = new Map<PeerId, PeerState>();
  readonly #scratch = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  #freeRequest: NodeRequest | null = null;
  #lease: LeaseView = NO_LEASE;
  /** Called when a gate has opened: the lease should be renewed now. */
  onGateOpened: () => void = () => undefined;
  /** Volumes whose losses of a power loss nobody has put right yet. */
  readonly #lossyVolumes = new Set<number>();
  /** Null: nobody doubts which device this is. */
  #registration: DeviceRegistration | null = null;

  constructor(environment: NodeEnvironment, options: NodeOptions) {
    this.environment = environment;
    this.acceptor = environment.acceptor;
    this.seat = options.seat ?? null;
    this.#isFixedConfig = options.isConfig ?? false;
    this.inventoryPage = options.inventoryPage ?? INVENTORY_PAGE;
    assert(
      this.inventoryPage > 0 && this.inventoryPage <= INVENTORY_PAGE,
      "a page of an inventory fits a body",
    );
    this.#store = environment.store;
    const { deviceId, clusterId, incarnation, lossy } = environment.store.identity;
    this.cluster = clusterId;
    this.id = nodeIdOf(deviceId);
    this.target = targetOf(clusterId, this.id, incarnation);
    if (lossy) this.#noteLosses();
  }

  /** The lease that this node serves under; it is the lease keeper's client. Before, it serves nothing. */
  useLease(lease: LeaseView): void {
    this.#lease = lease;
  }

  /** Nothing is done for volumes but while the device is registered. Before the first connection. */
  useRegistration(registration: DeviceRegistration): void {
    this.#registration = registration;
  }

  /** The registration's standing has changed. */
  standingChanged(why: string): void {
    if (this.#isQuarantined) for (const session of this.#sessions) session.close(`quarantined: ${why}`);
    else if (this.mayVote) this.onGateOpened();
  }

  /** It answers for volumes: as a member, and as a config node. */
  get mayVote(): boolean {
    return this.#registration === null || this.#registration.standing === "registered";
  }

  get #isQuarantined(): boolean {
    return this.#registration?.standing === "quarantined";
  }

  /** A connection has come. The stream is the node's from now on. */
  serve(stream: ByteStream): void {
    if (this.#sessions.size >= NODE_SESSIONS_MAX || this.#isQuarantined) {
      stream.setListener(NOBODY);
      stream.close();
      return;
    }
    const session = new ServedSession(this, this.environment, stream);
    this.#sessions.add(session);
    session.start();
  }

  /** Ends every session; the store stays the caller's. */
  close(): void {
    for (const session of this.#sessions) session.close("the node shuts down");
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  // ---- Sessions ----------------------------------------------------------------------------------------

  /** The device may miss acknowledged writes of the volume. Of others it may still when this is put right. */
  isLossyIn(volume: number): boolean {
    return this.#lossyVolumes.has(volume);
  }

  greeting(): NodeGreeting {
    const { incarnation, bootId, lossy } = this.#store.identity;
    return {
      node: this.id,
      incarnation,
      bootId,
      lossy,
      extentBlocks: this.#store.extentBlocks,
      windowRequests: WINDOW_REQUESTS,
      windowBytes: Math.min(WINDOW_BYTES, this.environment.pool.capacityBytes / 4),
    };
  }

  /** A Hello. Cuts the peer's older sessions; false when one with this number or a higher one was heard. */
  sessionSaysHello(session: ServedSession, peer: PeerId, number: number): boolean {
    let state = this.#peers.get(peer);
    if (state === undefined) {
      state = { highest: 0, sessions: new Set() };
      this.#peers.set(peer, state);
    }
    if (number <= state.highest) return false;
    state.highest = number;
    for (const older of state.sessions) older.close("the peer has opened a newer session");
    state.sessions.add(session);
    this.#greetWhenAlone(state);
    return true;
  }

  /** The session is closed and nothing of it is in the store any more. */
  sessionEnded(session: ServedSession, peer: PeerId): void {
    this.#sessions.delete(session);
    const state = this.#peers.get(peer);
    if (state === undefined || !state.sessions.delete(session)) return;
    if (state.sessions.size === 0) this.#peers.delete(peer);
    else this.#greetWhenAlone(state);
  }

  #greetWhenAlone(state: PeerState): void {
    if (state.sessions.size !== 1) return;
    for (const session of state.sessions) session.greet();
  }

  // ---- Records -----------------------------------------------------------------------------------------

  /** Phase 1, and the fence of a volume. */
  promise(key: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    if (isDeviceKey(key)) this.acceptor.promise(key, ballot, done);
    else if (!this.mayVote) done({ kind: "unknown" });
    else if (key === CONFIG_SET_KEY) this.acceptor.promise(key, ballot, done);
    else this.gate(key).promise(ballot, (answer) => done(this.mayVote ? answer : { kind: "unknown" }));
  }

  /** Phase 2; of a config node. */
  accept(key: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    if (isDeviceKey(key)) this.acceptor.accept(key, record, done);
    else if (!this.mayVote) done({ kind: "unknown" });
    else this.acceptor.accept(key, record, (answer) => done(this.mayVote ? answer : { kind: "unknown" }));
  }

  /**
   * Whether what it answers counts as a config node's of set number `set`; 0: of config nodes that never change. Asked
   * before a question is taken and again before it is answered.
   */
  votesIn(set: number): boolean {
    return this.seat === null ? this.#isFixedConfig : this.seat.votesIn(set);
  }

  /** States of records above key `after`, the lowest first; for who joins the config nodes. */
  states(after: number): ToldState[] {
    return this.acceptor.keysAfter(after).map((key) => ({ key, state: this.acceptor.state(key) }));
  }

  /** What a renewal is told. */
  promisedEpoch(key: number): number {
    return this.acceptor.state(key).promised.epoch;
  }

  // ---- Gates -------------------------------------------------------------------------------------------

  gate(volume: number): VolumeGate {
    let gate = this.#gates.get(volume);
    if (gate === undefined) {
      // The gate asks for the lease through the node: which one it is may still change.
      const lease: LeaseView = {
        mark: () => this.#lease.mark(),
        holds: (mark) => this.#lease.holds(mark),
      };
      gate = new VolumeGate(volume, this.acceptor, lease, (opened) => this.#gateOpened(opened));
      this.#gates.set(volume, gate);
    }
    return gate;
  }

  #gateOpened(gate: VolumeGate): void {
    this.environment.stability.begin(gate.volume, gate.ballot.epoch);
    this.onGateOpened();
  }

  watched(): readonly number[] {
    const volumes: number[] = [];
    if (this.#registration !== null && this.mayVote) volumes.push(this.#registration.key);
    for (const gate of this.#gates.values()) if (gate.isOpen) volumes.push(gate.volume);
    return volumes;
  }

  promised(volume: number, epoch: number): void {
    if (volume === this.#registration?.key) this.#registration.promised(epoch);
    this.#gates.get(volume)?.learn(epoch);
  }

  // ---- Operations --------------------------------------------------------------------------------------

  takeRequest(): NodeRequest {
    const request = this.#freeRequest ?? new NodeRequest(this);
    this.#freeRequest = request.next;
    request.next = null;
    return request;
  }

  giveRequest(request: NodeRequest): void {
    request.reset();
    request.next = this.#freeRequest;
    this.#freeRequest = request;
  }

  /** A whole operation of an open session, its range checked. It is answered by `session.answer`. */
  execute(request: NodeRequest): void {
    const { op, session } = request;
    const gate = this.#gates.get(op.volume);
    const status = this.mayVote
      ? (gate?.enter(op.epoch, session!.peer, op.generation) ?? Status.Fenced)
      : Status.NoLease;
    if (gate === undefined || status !== Status.Ok) {
      op.status = status;
      if (status === Status.Fenced) op.epoch = gate?.ballot.epoch ?? 0;
      session!.answer(request);
      return;
    }
    request.gate = gate;
    op.flags |= ExtentFlag.NoWait;
    if (changes(op.kind)) this.environment.stability.changing(op.volume, op.layer, op.extent, op.sequence);
    this.#store.submit(op);
  }

  requestDone(request: NodeRequest): void {
    const gate = request.gate!;
    request.gate = null;
    if (!gate.leave() || !this.mayVote) request.op.status = Status.NoLease;
    request.session!.answer(request);
  }

  /** Whether a write's payload is what its entries say. */
  payloadIsWhole(op: ExtentOp): boolean {
    const seed = extentSeed(volumeSeed(op.volume), op.extent);
    const { checksums } = this.environment;
    return blocksMatch(checksums, op.memory, op.blocks, seed, op.block, op.entries, this.#scratch);
  }

  get extentBlocks(): number {
    return this.#store.extentBlocks;
  }

  /** Whether the gate of the volume is open for this ballot. */
  isOpenFor(volume: number, epoch: number, owner: PeerId): boolean {
    return this.#gates.get(volume)?.isOf(epoch, owner) ?? false;
  }

  // ---- What is held ------------------------------------------------------------------------------------

  inventory(volume: number): InventoryEntry[] {
    const entries: InventoryEntry[] = [];
    this.#store.inventory(volume, (layer, extent, generation, created, hot) => {
      entries.push({ layer, extent, generation, created, hot });
    });
    return entries;
  }

  /** Extents from number `from` on in which blocks are known to be bad, ascending. */
  rottenExtents(volume: number, layer: number, from: number): number[] {
    const extents = new Set<number>();
    for (const bad of this.#store.badBlocks(volume))
      if (bad.layer === layer && bad.extent >= from) extents.add(bad.extent);
    return [...extents].sort((a, b) => a - b);
  }

  declareStable(volume: number, epoch: number, layer: number, extent: number, sequence: number): void {
    const { stability } = this.environment;
    stability.declare(volume, epoch, layer, extent, sequence);
    if (stability.size(volume) <= STABILITY_ENTRIES_MAX) return;
    const hot = new Set<string>();
    this.#store.inventory(volume, (hotLayer, hotExtent, _generation, _created, isHot) => {
      if (isHot) hot.add(`${hotLayer}/${hotExtent}`);
    });
    stability.prune(volume, (keptLayer, keptExtent) => hot.has(`${keptLayer}/${keptExtent}`));
  }

  /** Nothing of the volume is lacked here any more, or nobody will ask for it: it has no seat here. */
  reconciled(volume: number): void {
    this.#lossyVolumes.delete(volume);
    if (this.#lossyVolumes.size === 0) this.#store.reconciled();
  }

  /**
   * Every volume that was ever let in, not only those with hot extents: an extent whose creation was lost leaves
   * none. The promise is durable before anything is let in, so each of them has a page. Those without a seat here have
   * one too, and no owner who would ever ask; who knows the records says which they are (lib/cluster/losses.ts).
   */
  #noteLosses(): void {
    for (const volume of this.acceptor.volumes()) this.#lossyVolumes.add(volume);
    if (this.#lossyVolumes.size === 0) this.#store.reconciled();
  }
}

function changes(kind: ExtentOpKind): boolean {
  return kind !== ExtentOpKind.Read && kind !== ExtentOpKind.Map && kind !== ExtentOpKind.Flush;
}

const NO_LEASE: LeaseView = { mark: () => 0, holds: () => false };

const NOBODY = {
  streamReceived: () => undefined,
  streamSent: () => undefined,
  streamClosed: () => undefined,
};
