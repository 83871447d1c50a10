/**
 * One run: a device, a number of lives of the program on it, clients, faults, and the checks.
 *
 * A life opens the device, serves clients, and ends by kill −9, by power loss or by a clean close; the first two
 * at any event, opening and closing included. The last life is without faults: everything pending must complete,
 * everything is read, the device is closed and checked offline.
 */
import { BLOCK_BYTES, MIB } from "../../lib/core/limits.js";
import { type Routine, startRoutine } from "../../lib/core/routine.js";
import type { BadBlock, FormatOptions, Store, StoreEnvironment, StoreEvents } from "../../lib/store/api.js";
import { freshArena } from "./arena.js";
import { AtRest, type AtRestHost } from "./at-rest.js";
import { type ClientHost, OpKind, SimClient } from "./clients.js";
import {
  type CrashPoint,
  configOf,
  type Feature,
  type FrontKind,
  type RunConfig,
  type RunOptions,
} from "./config.js";
import type { Coverage } from "./coverage.js";
import { SimDevice } from "./device.js";
import { type FaultHost, Faults } from "./faults.js";
import type { LifeFront } from "./fronts.js";
import { History, Taint } from "./history.js";
import { SIM_POOL_BYTES, SimPool, simMemory } from "./memory.js";
import { checkMirror, SimMirror, type Waiter } from "./mirror.js";
import { NbdFront } from "./nbd-front.js";
import { type OpenedFront, openFront } from "./opening.js";
import type { Prng } from "./prng.js";
import type { EventTarget } from "./queue.js";
import { readEverything } from "./read-everything.js";
import { SimRedis } from "./redis.js";
import type { Subject } from "./subject.js";
import { asViolation, Violation } from "./violation.js";
import { VolumeTable } from "./volume-table.js";
import { Workload } from "./workload.js";
import { type SimProcess, SimWorld, type TraceSink, turn } from "./world.js";

/** Virtual time in which anything that was asked for must be over once nothing is faulty. */
const LIVENESS_US = 600e6;
/** Events between two answers at most; a run in which nothing is answered by then is stuck. */
const EVENTS_PER_WAIT_MAX = 400_000;
/** The real event loop has a turn every so many batches, so that signals are heard. */
const STEPS_PER_TURN = 10_000;
/** Pools that each front can work with; the gateway and the volumes' owner take their share at once. */
const POOL_BYTES: Record<FrontKind, readonly number[]> = {
  store: [2 * MIB, 4 * MIB, SIM_POOL_BYTES],
  volume: [4 * MIB, SIM_POOL_BYTES],
  nbd: [SIM_POOL_BYTES],
};
/** Clients leave this much of the pool to the program, so that what it needs itself is always there. */
const CLIENT_POOL_RESERVE = MIB / 2;
/** Share of lives that find a device of an older format, and events in which its upgrade may be cut short. */
const OLD_FORMAT_SHARE = 0.3;
const OLD_FORMAT_EVENTS = 400;

const EVENT_CLIENT = 10;
const EVENT_JANITOR = 12;

export interface RunResult {
  readonly seed: number;
  readonly hash: string;
  readonly config: RunConfig;
  readonly coverage: Coverage;
  readonly violation: Violation | null;
}

/** Thrown through a life when its time has come. */
class LifeEnds extends Error {}

type LifeEnd = "kill" | "power" | "clean";

export async function run(
  subject: Subject,
  options: RunOptions,
  trace: TraceSink | null = null,
): Promise<RunResult> {
  const world = new SimWorld(options.seed, trace);
  const config = configOf(options);
  Violation.raised = null;
  let violation: Violation | null = null;
  try {
    await new Run(world, config, subject).execute();
  } catch (error) {
    violation = Violation.raised ?? asViolation(error);
    trace?.(`VIOLATION ${violation.message}`);
  }
  return { seed: options.seed, hash: world.hash, config, coverage: world.coverage, violation };
}

class Run implements ClientHost, EventTarget, StoreEvents, FaultHost, AtRestHost, Waiter {
  readonly world: SimWorld;
  readonly config: RunConfig;
  readonly history: History;
  readonly device: SimDevice;
  readonly granulesPerBlock: number;
  readonly granulesPerVolume: number;
  readonly #subject: Subject;
  readonly #format: FormatOptions;
  readonly #random: Prng;
  readonly #faults: Faults;
  readonly #atRest: AtRest;
  readonly #workload: Workload;
  readonly #clients: SimClient[];
  readonly #janitor: SimClient;
  readonly volumes: VolumeTable;

  #process: SimProcess | null = null;
  #pool: SimPool | null = null;
  #store: Store | null = null;
  #front: LifeFront | null = null;
  #boot = 1;
  #write = 0;
  /** Event number at which this life ends by force. */
  #endAt = Number.POSITIVE_INFINITY;
  /** Operations that this life still starts. */
  #operationsLeft = 0;
  /** Operations that are over: while this moves the run is not stuck. */
  #answers = 0;
  /** After a power loss, until the store has said that everything is settled. */
  #lossy = false;
  /** The device said that it has failed. */
  #failed: string | null = null;
  #full = false;
  /** Control operations in progress: their promises need turns of the real event loop. */
  #asyncWork = 0;
  /** Lives on while processes die. */
  readonly redis: SimRedis | null;
  #mirror: SimMirror | null = null;
  /** A promise has an outcome: the real event loop must have a turn. */
  #turnWanted = false;

  constructor(world: SimWorld, config: RunConfig, subject: Subject) {
    this.world = world;
    this.config = config;
    this.#subject = subject;
    this.#random = world.random.fork("run");
    this.#faults = new Faults(this, world.random.fork("faults"));
    this.#atRest = new AtRest(this, subject, this.#random);
    this.#workload = new Workload(config, world.random.fork("workload"));
    this.granulesPerBlock = BLOCK_BYTES / config.granuleBytes;
    this.granulesPerVolume = config.extentsPerVolume * config.extentBlocks * this.granulesPerBlock;
    this.history = new History(config.volumes * this.granulesPerVolume);
    this.device = new SimDevice(world, freshArena(), {
      sizeBytes: config.capacityBytes,
      alignBytes: config.alignBytes,
      zeroGrainBytes: config.zeroGrainBytes,
      latencyUs: config.latencyUs,
      granuleBytes: config.granuleBytes,
    });
    this.device.witness = {
      tainted: (register, lost) => this.#taintBlock(register, lost),
      readFault: () => undefined,
    };
    this.#clients = Array.from({ length: config.clients }, (_, number) => new SimClient(this, number));
    this.#janitor = new SimClient(this, config.clients);
    this.volumes = new VolumeTable(this, config);
    this.#format = {
      deviceId: Uint8Array.from({ length: 16 }, () => this.#random.below(256)),
      clusterId: new Uint8Array(16).fill(7),
      capacityBytes: config.capacityBytes,
      extentBlocks: config.extentBlocks,
      logBytes: config.logBytes,
      records: 16,
    };
    const mirrored = config.front !== "store" && this.#has("redis");
    this.redis = mirrored ? new SimRedis(this, world.random.fork("redis")) : null;
    for (let register = 0; register < config.volumes * this.granulesPerVolume; register++)
      this.history.create(register);
  }

  /** All of the block: its granules of zeros cannot say whose they are. */
  #taintBlock(register: number, lost: boolean): void {
    const first = register - (register % this.granulesPerBlock);
    const taint = this.#taintOf(lost);
    for (let i = 0; i < this.granulesPerBlock; i++) this.history.taint(first + i, taint);
  }

  /** While the store takes over bytes after a power loss, damage may be taken over too. */
  #taintOf(lost: boolean): Taint {
    if (this.#lossy) return Taint.Unknown;
    return lost ? Taint.Lost : Taint.Rotten;
  }

  async execute(): Promise<void> {
    this.device.provisionedBelow = this.#subject.provisionedBytes(this.#format);
    await this.#formatDevice();
    if (this.#random.chance(0.5)) this.device.powerLoss();
    if (this.config.crash !== null) {
      await this.#liveUntil(this.config.crash);
      return;
    }
    for (let life = 1; life < this.config.lives; life++) await this.#live(life, this.#drawEnd());
    await this.#lastLife();
  }

  #has(feature: Feature): boolean {
    return this.config.features.has(feature);
  }

  #drawEnd(): LifeEnd {
    const ends: LifeEnd[] = [];
    if (this.#has("kill")) ends.push("kill");
    if (this.#has("power")) ends.push("power");
    if (this.#has("clean") || ends.length === 0) ends.push("clean");
    return this.#random.pick(ends);
  }

  // --- lives ---------------------------------------------------------------------------------------------

  async #formatDevice(): Promise<void> {
    const environment = this.#newProcess();
    let over = false;
    startRoutine(this.#subject.format(environment, this.#format), (error) => {
      if (error !== null) throw asViolation(error);
      over = true;
    });
    await this.until(() => over, "formatting");
    this.#endProcess();
    this.device.crashInFlight();
  }

  async #live(life: number, end: LifeEnd): Promise<void> {
    const { world } = this;
    world.coverage.lifeBegins();
    world.coverage.count(`life:${end}`);
    if (world.trace !== null) world.say(`=== life ${life}, to end by ${end}, boot ${this.#boot}`);
    const old = await this.#atRest.takeBack(OLD_FORMAT_SHARE);
    const share = Math.ceil(this.config.operations / this.config.lives);
    this.#operationsLeft = this.#random.between(1, 2 * share);
    // A short life ends while it opens; a long one in the middle of its work, or while it closes.
    const early = this.#has("kill-while-opening") && this.#random.chance(0.25);
    const span = early
      ? this.#random.between(1, old ? OLD_FORMAT_EVENTS : 60)
      : this.#random.between(20, 40 * this.#operationsLeft);
    this.#endAt = end === "clean" && !early ? Number.POSITIVE_INFINITY : world.coverage.events + span;
    this.#faults.rotAtRest(this.#subject, this.#format, this.#random);
    try {
      await this.#open();
      this.#faults.start();
      this.#wakeClients();
      await this.until(() => this.#idle() || this.#failed !== null, "clients to finish");
      if (this.#failed === null && (end === "clean" || this.#random.chance(0.3))) await this.#closeCleanly();
      else if (this.#failed === null) await this.wait(this.#random.between(1, 30_000));
    } catch (error) {
      if (!(error instanceof LifeEnds)) throw error;
    }
    const alsoPower = end === "clean" && this.#random.chance(0.5) && this.#mayLosePower;
    this.#crash(alsoPower ? "power" : end);
    world.coverage.lifeEnds();
    const { checkShare } = this.config;
    if (checkShare > 0 && this.#random.chance(checkShare)) await this.#atRest.checkCrashed();
    if (this.#has("rot-log") && this.#random.chance(0.5)) await this.#atRest.rotLog();
    // What the dead process's promises still do reaches nothing, but must be over before the next one begins.
    if (this.config.front !== "store") for (let i = 0; i < 3; i++) await turn();
  }

  /** Crash replay: a life that ends at one event, and what is left of it. */
  async #liveUntil(crash: CrashPoint): Promise<void> {
    const { world } = this;
    const first = world.coverage.events;
    this.#operationsLeft = this.config.operations;
    this.#endAt = first + crash.event;
    try {
      await this.#open();
      this.#wakeClients();
      await this.until(() => this.#idle(), "clients to finish");
      await this.#closeCleanly();
    } catch (error) {
      if (!(error instanceof LifeEnds)) throw error;
    }
    world.coverage.count("replay:life-events", world.coverage.events - first);
    this.device.chooseLosses(crash.variant);
    this.#crash(crash.kind);
    if (crash.again > 0) await this.#liveAgain(crash);
    await this.#finish();
  }

  /** A second life after the crash, cut short as well: what recovery does must survive a crash too. */
  async #liveAgain(crash: CrashPoint): Promise<void> {
    this.#operationsLeft = Math.ceil(this.config.operations / 3);
    await this.#atRest.takeBack(1);
    this.#endAt = this.world.coverage.events + crash.again;
    try {
      await this.#open();
      this.#wakeClients();
      await this.until(() => this.#idle(), "clients to finish");
    } catch (error) {
      if (!(error instanceof LifeEnds)) throw error;
    }
    this.#crash(crash.variant % 2 === 0 ? "kill" : "power");
  }

  /** Ends the life; `end` "clean" means that nothing more than the process is gone. */
  #crash(end: LifeEnd): void {
    const { world } = this;
    this.#endAt = Number.POSITIVE_INFINITY;
    // A failed device is opened again under another boot id, and what it held in memory is gone.
    const power = end === "power" || this.#failed !== null;
    if (world.trace !== null) world.say(power ? "*** power loss" : "*** process ends");
    this.#endProcess();
    this.history.oldestReadAt = Number.POSITIVE_INFINITY;
    if (power) {
      this.#lossy = true;
      this.device.powerLoss();
      this.history.powerLoss();
      this.#boot++;
    } else {
      this.device.crashInFlight();
      this.history.kill();
    }
    this.volumes.crashed();
  }

  #endProcess(): void {
    this.#process?.kill();
    this.#process = null;
    this.#store = null;
    this.#front = null;
    this.#mirror = null;
    this.#asyncWork = 0;
    for (const client of [...this.#clients, this.#janitor]) client.orphan();
  }

  async #lastLife(): Promise<void> {
    const { world } = this;
    if (world.trace !== null) world.say("=== last life, without faults");
    this.#faults.end();
    this.#failed = null;
    await this.#atRest.takeBack(OLD_FORMAT_SHARE);
    await this.#open();
    this.#operationsLeft = this.#random.below(100);
    this.#wakeClients();
    await this.until(() => this.#idle(), "clients to finish");
    if (this.#random.chance(0.5)) await this.wait(this.#random.between(1, 3_000_000));
    if (this.#mirror !== null) await checkMirror(this.#mirror, this.redis!, this);
    await readEverything(this, this.#clients[0]!);
    await this.#closeCleanly();
    this.#endProcess();
    if (this.#random.chance(0.5)) {
      this.device.powerLoss();
      this.history.powerLoss();
    } else {
      this.device.crashInFlight();
      this.history.kill();
    }
    await this.#atRest.checkClosed();
    await this.#finish();
  }

  /** Opens once more, reads everything and closes. */
  async #finish(): Promise<void> {
    this.#faults.end();
    this.#operationsLeft = 0;
    await this.#open();
    await readEverything(this, this.#clients[0]!);
    await this.#closeCleanly();
    this.#endProcess();
    await this.#atRest.checkClosed();
  }

  #newProcess(): StoreEnvironment {
    const process = this.world.spawn();
    const pool = new SimPool(this.#random.pick(POOL_BYTES[this.config.front]));
    this.#process = process;
    this.#pool = pool;
    this.#failed = null;
    this.#full = false;
    return {
      disk: this.device.open(process, pool),
      pool,
      clock: process,
      random: process,
      ticker: process,
      checksums: simMemory().checksums,
      bootId: `boot-${this.#boot}`,
      events: this,
    };
  }

  async #open(): Promise<void> {
    const environment = this.#newProcess();
    let opened: OpenedFront | null = null;
    let failure: unknown = null;
    this.#asyncWork++;
    const nbd = {
      world: this.world,
      process: this.process,
      asyncBegin: () => this.asyncBegin(),
      asyncEnd: () => this.asyncEnd(),
    };
    openFront(
      this.#subject,
      environment,
      { config: this.config, volumes: this.volumes, nbd },
      (error, front) => {
        this.#asyncWork--;
        failure = error;
        opened = front;
      },
    );
    await this.until(() => opened !== null || failure !== null, "the device to open");
    if (failure !== null) throw this.#openFailed(failure);
    const { store, front } = opened as unknown as OpenedFront;
    this.#store = store;
    this.#front = front;
    if (front instanceof NbdFront) await this.until(() => front.ready, "connections to be served");
    this.#startMirror(store);
    this.volumes.checkRecords(store);
    this.volumes.resume();
  }

  #startMirror(store: Store): void {
    const { registry } = this.volumes;
    if (this.redis === null || registry === null) return;
    const { process } = this;
    const session = (): string => `${process.u32()}`;
    this.#mirror = new SimMirror(this, process, this.redis, registry, store, session);
  }

  promiseMoved(): void {
    this.#turnWanted = true;
  }

  async #closeMirror(): Promise<void> {
    const mirror = this.#mirror;
    if (mirror === null) return;
    this.#mirror = null;
    let closed = false;
    this.#asyncWork++;
    void mirror.close().then(() => {
      closed = true;
      this.#asyncWork--;
    });
    await this.until(() => closed || this.#failed !== null, "the mirror to close");
    if (this.#failed !== null) throw new LifeEnds();
  }

  #openFailed(failure: unknown): Error {
    if (Violation.raised !== null) return Violation.raised;
    const faulty = this.device.readFaultsOfLife > 0 || this.device.writeFaults > 0 || this.device.syncFailed;
    if (!faulty) return new Violation("I21", `the device does not open: ${String(failure)}`, failure);
    this.world.coverage.count("open:failed");
    this.#failed = "opening";
    return new LifeEnds();
  }

  async #closeCleanly(): Promise<void> {
    const store = this.#store!;
    await this.#drain();
    await this.#closeMirror();
    const at = this.history.tick();
    let closed = false;
    this.#asyncWork++;
    this.volumes.close(() => {
      store.close((error) => {
        closed = true;
        this.#asyncWork--;
        if (error !== null && this.#failed === null && !this.#wasFaulty())
          throw new Violation("I23", `the store does not close: ${error.message}`, error);
        if (error === null) this.history.flushed(at);
      });
    });
    await this.until(() => closed || this.#failed !== null, "the store to close");
    if (this.#failed !== null) throw new LifeEnds();
    this.world.coverage.count("closed");
    const leaked = this.#pool!.capacityBytes - this.#pool!.freeBytes;
    if (leaked !== 0 && !this.#wasFaulty())
      throw new Violation("I23", `${leaked} bytes of the pool are in use after the store was closed`);
  }

  #wasFaulty(): boolean {
    return this.device.writeFaults > 0 || this.device.syncFailed || this.device.readFaultsOfLife > 0;
  }

  /** Waits until control operations are over. */
  async #drain(): Promise<void> {
    await this.until(() => this.volumes.idle || this.#failed !== null, "control operations to finish");
    if (this.#failed !== null) throw new LifeEnds();
  }

  /** Runs `work` in a process of its own. */
  async offline<T>(work: (environment: StoreEnvironment) => Routine<T>, what: string): Promise<T> {
    let outcome: { readonly value: T } | null = null;
    startRoutine(work(this.#newProcess()), (error, value) => {
      if (error !== null) throw asViolation(error);
      outcome = { value: value! };
    });
    await this.until(() => outcome !== null, what);
    this.#endProcess();
    return (outcome as unknown as { readonly value: T }).value;
  }

  get #mayLosePower(): boolean {
    return !this.#has("rot-metadata") && !this.#has("rot-zeros");
  }

  // --- waiting -------------------------------------------------------------------------------------------

  async until(condition: () => boolean, what: string): Promise<void> {
    const { world } = this;
    let answers = this.#answers;
    let since = world.nowUs;
    let eventsMax = world.coverage.events + EVENTS_PER_WAIT_MAX;
    for (let steps = 1; !condition(); steps++) {
      if (answers !== this.#answers) {
        answers = this.#answers;
        since = world.nowUs;
        eventsMax = world.coverage.events + EVENTS_PER_WAIT_MAX;
      }
      if (this.#asyncWork > 0 || this.#turnWanted || steps % STEPS_PER_TURN === 0) await this.#turn();
      // What was asked for outside a batch has its end of batch now, as with a real engine.
      this.#process?.runTasks();
      if (Violation.raised !== null) throw Violation.raised;
      if (condition()) return;
      if (world.coverage.events >= this.#endAt) throw new LifeEnds();
      if (!world.step() && this.#asyncWork === 0)
        throw new Violation("I23", `nothing happens any more while waiting for ${what}`);
      if (Violation.raised !== null) throw Violation.raised;
      const us = world.nowUs - since;
      if (us > LIVENESS_US || world.coverage.events > eventsMax)
        throw new Violation("I23", `waited ${(us / 1e6).toFixed(0)} s for ${what}; nothing was answered`);
    }
  }

  /** Lets time pass, while there is something to happen. */
  async wait(us: number): Promise<void> {
    const { world } = this;
    const until = world.nowUs + us;
    while (world.queue.nextTime <= until && this.#failed === null) {
      if (this.#asyncWork > 0 || this.#turnWanted) await this.#turn();
      if (world.coverage.events >= this.#endAt) throw new LifeEnds();
      if (!world.step()) return;
      if (Violation.raised !== null) throw Violation.raised;
    }
  }

  async #turn(): Promise<void> {
    this.#turnWanted = false;
    await turn();
  }

  #idle(): boolean {
    return this.#operationsLeft === 0 && !this.#janitor.busy && this.#clients.every((client) => !client.busy);
  }

  // --- clients -------------------------------------------------------------------------------------------

  pool(): SimPool {
    return this.#pool!;
  }

  nextWriteId(): number {
    return ++this.#write;
  }

  get store(): Store | null {
    return this.#store;
  }

  get front(): LifeFront | null {
    return this.#front;
  }

  get coverage(): Coverage {
    return this.world.coverage;
  }

  get working(): boolean {
    return this.#operationsLeft > 0;
  }

  endFaults(): void {
    this.#faults.end();
  }

  get process(): SimProcess {
    return this.#process!;
  }

  asyncBegin(): void {
    this.#asyncWork++;
  }

  asyncEnd(): void {
    this.#asyncWork--;
  }

  /** Clients that have an operation on the volume. */
  busyOn(volume: number): boolean {
    return [...this.#clients, this.#janitor].some((client) => client.busy && client.volume === volume);
  }

  #wakeClients(): void {
    for (const client of this.#clients) this.#wake(client);
  }

  #wake(client: SimClient): void {
    this.world.at(
      1 + this.#random.below(this.config.thinkUs + 1),
      this,
      this.#process,
      EVENT_CLIENT,
      client.number,
    );
  }

  done(client: SimClient): void {
    let oldest = Number.POSITIVE_INFINITY;
    for (const other of this.#clients)
      if (other.reading && other.invokedAt < oldest) oldest = other.invokedAt;
    this.history.oldestReadAt = oldest;
    // What the janitor does is no progress of those for whom it does it.
    if (client === this.#janitor) return;
    this.#answers++;
    if (this.#front === null) return;
    if (this.#operationsLeft > 0) this.#wake(client);
  }

  simEvent(code: number, tag: number): void {
    if (code === EVENT_CLIENT) this.#clientEvent(this.#clients[tag]!);
    else this.#janitorEvent();
  }

  #clientEvent(client: SimClient): void {
    if (this.#operationsLeft <= 0 || client.busy || this.#failed !== null) return;
    this.#workload.draw(client, (volume) => this.volumes.blocks(volume), this.history.flushDue);
    // As a gateway would, a client that finds no memory waits before it takes a lock.
    const room = this.#pool!.freeBytes > CLIENT_POOL_RESERVE;
    if (!room || !this.volumes.usable(client.volume) || !this.#front!.admit(client)) {
      this.#retry(client);
      return;
    }
    if (client.start(this.#front!, this.#workload.zeroChance)) {
      this.#operationsLeft--;
      return;
    }
    // What is free lies in pieces that are too small for it.
    this.#front!.dismiss(client);
    this.#retry(client);
  }

  #retry(client: SimClient): void {
    this.world.at(100 + this.#random.below(4000), this, this.#process, EVENT_CLIENT, client.number);
  }

  /** Frees extents while writes wait for space: somebody has to. All clients may wait, so it flushes for them too. */
  #janitorEvent(): void {
    if (!this.#full || this.#front === null) return;
    this.world.at(2000, this, this.#process, EVENT_JANITOR, 0);
    const client = this.#janitor;
    if (client.busy) return;
    const volume = this.#random.below(this.config.volumes);
    const extents = Math.floor(this.volumes.blocks(volume) / this.config.extentBlocks);
    const perExtent = this.config.extentBlocks * this.granulesPerBlock;
    const first = this.#random.below(extents) * perExtent;
    if (this.history.flushDue) client.want(OpKind.Flush, volume, 0, 0);
    else client.want(OpKind.Free, volume, first, perExtent);
    if (!this.volumes.usable(volume) || !this.#front.admit(client)) return;
    client.start(this.#front, 0);
  }

  // --- StoreEvents ---------------------------------------------------------------------------------------

  bitRot(bad: BadBlock): void {
    this.world.coverage.count("event:bit-rot");
    if (this.world.trace !== null) this.world.say(`store: bit rot in ${JSON.stringify(bad)}`);
    if (!this.#atRest.damaged && this.device.readFaultsOfLife === 0)
      throw new Violation("I8", `bit rot was reported where no byte has changed: ${JSON.stringify(bad)}`);
  }

  full(full: boolean): void {
    this.world.coverage.count(full ? "event:full" : "event:not-full");
    if (full && !this.#full) this.world.at(1000, this, this.#process, EVENT_JANITOR, 0);
    this.#full = full;
  }

  failed(reason: string): void {
    this.world.coverage.count("event:failed");
    if (this.world.trace !== null) this.world.say(`store: failed: ${reason}`);
    if (this.device.writeFaults === 0 && !this.device.syncFailed && this.device.readFaultsOfLife === 0)
      throw new Violation("I23", `the device was failed although it did nothing wrong: ${reason}`);
    this.#failed = reason;
  }

  lossy(lossy: boolean): void {
    this.#lossy = lossy;
    this.world.coverage.count(lossy ? "event:lossy" : "event:settled");
  }

  adopted(_volume: number, _extent: number, blocks: number): void {
    this.world.coverage.count("event:adopted-blocks", blocks);
  }

  extentChanged(volume: number, layer: number, extent: number, exists: boolean): void {
    this.#mirror?.extentChanged(volume, layer, extent, exists);
  }
}
