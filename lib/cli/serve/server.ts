/**
 * The composition root of `lamina serve`: makes the rooms, joins them, and takes them down in order.
 *
 * Order of starting, and why: everything that can be refused is looked at before anything is written (data
 * directory, ports, redis-server, device, Redis). Order of ending: no new work, finish what is in flight, make
 * it durable, mark it clean, and only then let go of the lock.
 */
import { realpathSync } from "node:fs";
import type { Logger } from "pino";
import { type Admin, type AdminSources, startAdmin } from "../../admin/index.js";
import { EventLog, mirrorOff } from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import { needsTls } from "../../gateway/access.js";
import type { Gateway } from "../../gateway/index.js";
import { FORMAT_VERSION, type Store } from "../../store/index.js";
import { addressText } from "../../uring/address.js";
import type { Engine, ListenAddress, Listener } from "../../uring/api.js";
import { DeviceRegistry } from "../../volume/registry.js";
import { VERSION } from "../version.js";
import { checkDirectory, type HeldDirectory, holdDirectory } from "./data-directory.js";
import { findDevice, type ReadyDevice, readyDevice } from "./device.js";
import { type Front, openOwnerEngine, startFront } from "./front.js";
import { HandOver } from "./hand-over.js";
import { nbdUri } from "./listeners.js";
import type { OfferedSocket } from "./offer.js";
import type { ServeOptions } from "./options.js";
import { Parts } from "./parts.js";
import { findPlaces, type Places } from "./places.js";
import { checkRedis, checkRedisProgram, type RedisSide, startRedis } from "./redis.js";
import type { ScrubSchedule } from "./scrub-schedule.js";
import { startScrubs } from "./scrubs.js";
import { closeVolumes, openServed } from "./store.js";
import { followRegistry, type Later } from "./story.js";
import type { TakeOver } from "./take-over.js";
import { checkTls } from "./tls.js";

export interface Server {
  /** NBD URIs, one per listener. */
  readonly uris: readonly string[];
  readonly adminAddress: string;
  /** Keys and certificates anew, for connections to come; false without TLS. Throws TLS_FILES: the old ones stay. */
  reloadTls(): boolean;
  /** Resolves with the pid of the process that takes over, for which this server is to be closed. */
  readonly replaced: Promise<number>;
  /** Ends cleanly: everything acknowledged is durable and the device is marked clean. */
  close(): Promise<void>;
}

const EXIT_FAILED = 1;

/**
 * Throws LaminaError; whatever had been started is taken down then. With `takeOver` in place of the server that it
 * names, which goes on serving if this one cannot be prepared; REPLACE_FAILED: it has ended, and this one failed.
 */
export async function startServer(
  options: ServeOptions,
  log: Logger,
  takeOver: TakeOver | null = null,
): Promise<Server> {
  checkRedisProgram(options.redis);
  if (options.tls !== null) checkTls(options.tls, log);
  if (takeOver === null) checkDirectory(options.data);
  const places = await findPlaces(options, takeOver);
  const parts = new Parts();
  try {
    return await compose({ options, places, takeOver, log, parts });
  } catch (error) {
    await parts.takeDown();
    throw takeOver?.committed === true ? replaceFailed(takeOver.pid, error) : error;
  }
}

function replaceFailed(pid: number, error: unknown): unknown {
  if (!(error instanceof LaminaError)) return error;
  return new LaminaError("REPLACE_FAILED", { pid, what: error.message, hint: error.next }, error);
}

/** What a server is made from. */
interface Order {
  readonly options: ServeOptions;
  readonly places: Places;
  readonly takeOver: TakeOver | null;
  readonly log: Logger;
  readonly parts: Parts;
}

async function compose(order: Order): Promise<Server> {
  const { options, places, takeOver, log, parts } = order;
  const startedAt = Date.now();
  const engine = await openOwnerEngine(options);
  parts.add(() => engine.close());
  // Clients may still be taking their last replies when the device has been let go of.
  let gateway: Gateway | null = null;
  parts.add(() => gateway?.close());
  const events = new EventLog(() => Date.now());
  if (engine.fallbackReason !== null) {
    log.warn(engine.fallbackReason);
    events.record("io-engine-fallback", null, engine.fallbackReason);
  }
  await takeOver?.check(options, log);
  await takeOver?.commit(log);
  const { device, held } = await takeDevice(engine, order);
  const later: Later = { mirror: null, registry: null };
  const served = await openServed({ engine, events, later, log, parts }, device, { soleMember: true });
  const { store } = served;
  const { pool, clock, random, checksums } = engine;
  const registry = new DeviceRegistry({ store, pool, clock, random, ticker: engine, checksums });
  parts.add(() => closeVolumes(registry, served));
  later.registry = registry;
  followRegistry(registry, events, later);
  checkAccessLists(options, registry, log);
  const scrubs = await startScrubs({ engine, device, data: held.path, store, events, log });
  parts.add(() => scrubs.close());
  const redis = await startMirror(options, device, store, registry, events, log);
  later.mirror = redis?.mirror ?? null;
  parts.add(async () => redis?.close());
  const front = await startFront(options, engine, registry, log, (error) => endNow(error, log));
  const state: State = { stopping: false, replacedBy: 0 };
  gateway = front.gateway;
  parts.add(() => front.gateway.drain(state.replacedBy === 0 ? "close" : "hand-over"));
  const made = { engine, device, store, registry, events, front, redis, scrubs };
  const running: Running = { startedAt, options, state, ...made, admin: null };
  const handOver = offerHandOver(running);
  const admin = await startTheAdmin(running, places, handOver, log);
  running.admin = admin;
  parts.add(() => (state.replacedBy === 0 ? admin.close() : admin.leave()));
  for (const address of places.listen) await gateway.listen(address);
  takeOver?.discardRest();
  const uris = urisOf(gateway, options);
  log.info(
    {
      data: held.path,
      device: device.path,
      engine: engine.kind,
      threads: front.threads().length,
      admin: admin.address,
      volumes: registry.list().length,
    },
    "lamina serves",
  );
  events.record("server-started", null, `lamina ${VERSION} serves ${device.path} on ${uris.join(", ")}`);
  return {
    uris,
    adminAddress: admin.address,
    reloadTls() {
      const reloaded = front.reloadTls();
      if (reloaded) events.record("tls-reloaded", null, "keys and certificates were read anew");
      return reloaded;
    },
    replaced: handOver.committed.then((pid) => {
      state.replacedBy = pid;
      return pid;
    }),
    async close() {
      state.stopping = true;
      const whom = state.replacedBy === 0 ? "" : ` for process ${state.replacedBy}`;
      events.record("server-stopping", null, `lamina finishes what is in flight and ends${whom}`);
      await parts.takeDown();
    },
  };
}

/** A connection thread has failed. Nothing acknowledged is lost; nothing could answer its connections any more. */
function endNow(error: Error, log: Logger): void {
  log.fatal({ err: error }, error.message);
  process.exit(EXIT_FAILED);
}

/** Throws ACCESS_LIST_MISSING. Warns of lists that shut everyone out. */
function checkAccessLists(options: ServeOptions, registry: DeviceRegistry, log: Logger): void {
  for (const record of registry.list()) {
    const { name } = record;
    if (options.guardedAddress !== null && record.access.length === 0) {
      throw new LaminaError("ACCESS_LIST_MISSING", { name, address: options.guardedAddress });
    }
    if (options.tls === null && needsTls(record)) {
      log.warn({ volume: name }, "nobody can use this volume: its access list asks for TLS, which is off");
    }
  }
}

function urisOf(gateway: Gateway, options: ServeOptions): string[] {
  return gateway.listeners.map(({ address }) => nbdUri(address, options.tls?.mode === "forced"));
}

async function takeDevice(
  engine: Engine,
  { options, takeOver, log, parts }: Order,
): Promise<{ device: ReadyDevice; held: HeldDirectory }> {
  const held =
    takeOver === null
      ? await holdDirectory(engine, options.data)
      : await takeOver.hold(engine, options.data, log);
  parts.add(() => held.release());
  const found = await findDevice(engine, options, (reason) => log.warn(reason));
  let device: ReadyDevice;
  try {
    await checkRedis(options.redis, found.identity?.clusterId ?? null, log);
    device = await readyDevice(engine, found);
  } catch (error) {
    found.opened?.disk.close();
    throw error;
  }
  parts.add(() => device.opened.disk.close());
  const { path, formatted, opened } = device;
  if (formatted) log.info({ path, bytes: opened.disk.sizeBytes }, "a new store was made");
  if (!opened.direct) log.warn({ path }, "O_DIRECT is refused here: I/O goes through the page cache");
  return { device, held };
}

function startMirror(
  options: ServeOptions,
  device: ReadyDevice,
  store: Store,
  registry: DeviceRegistry,
  events: EventLog,
  log: Logger,
): Promise<RedisSide | null> {
  const source = {
    storeId: device.clusterId,
    nodeId: device.deviceId.slice(0, 8),
    records: () => registry.list(),
    inventory: (volume: number, visit: (layer: number, extent: number) => void) =>
      store.inventory(volume, visit),
    node() {
      const { slots, slotBytes } = store.stats();
      return { device: device.path, slots, slotBytes };
    },
  };
  return startRedis(options, source, events, log);
}

interface Running {
  readonly startedAt: number;
  readonly options: ServeOptions;
  readonly engine: Engine;
  readonly device: ReadyDevice;
  readonly store: Store;
  readonly registry: DeviceRegistry;
  readonly events: EventLog;
  readonly front: Front;
  readonly redis: RedisSide | null;
  readonly scrubs: ScrubSchedule;
  readonly state: State;
  /** Null until it answers. */
  admin: Admin | null;
}

interface State {
  stopping: boolean;
  /** Pid of the process that takes over; 0 while none does. */
  replacedBy: number;
}

function offerHandOver(running: Running): HandOver {
  const { options, device, registry, front } = running;
  return new HandOver({
    directory: options.data,
    notReady: () => notReady(running),
    describe: () => ({
      version: VERSION,
      device: realpathSync(device.path),
      formatVersion: FORMAT_VERSION,
      clusterId: device.clusterId,
      withoutAccessList: registry.list().flatMap(({ name, access }) => (access.length === 0 ? [name] : [])),
    }),
    sockets() {
      const { host, port } = options.admin;
      const asked = addressText({ kind: "tcp", host, port });
      const { sockets, address } = running.admin!;
      return [
        ...front.gateway.listeners.map((listener, i) => nbdSocket(listener, options.listen[i]!)),
        { role: "admin", asked, bound: address, fd: sockets.remote },
        { role: "admin-local", asked: "", bound: "", fd: sockets.local },
      ];
    },
  });
}

function nbdSocket({ fd, address }: Listener, asked: ListenAddress): OfferedSocket & { fd: number } {
  const text = asked.kind === "fd" ? null : addressText(asked);
  return { role: "nbd", asked: text, bound: addressText(address), fd };
}

/** Why not everything is served, in one sentence; null when it is. */
function notReady({ state, front, options }: Running): string | null {
  if (state.stopping) return "the server is stopping";
  return front.gateway.listeners.length < options.listen.length ? "the server is starting" : null;
}

function startTheAdmin(running: Running, places: Places, handOver: HandOver, log: Logger): Promise<Admin> {
  const { options } = running;
  return startAdmin({
    sources: { ...adminSources(running), replacement: handOver },
    sockets: places.admin,
    directory: options.data,
    host: options.admin.host,
    port: options.admin.port,
    onError: (error) => log.error({ err: error }, "an admin request failed"),
  });
}

function adminSources(running: Running): AdminSources {
  const { startedAt, options, engine, device, store, registry, events, front, redis, scrubs } = running;
  const { gateway } = front;
  const off = mirrorOff(startedAt);
  const { opened, path } = device;
  return {
    registry,
    store,
    events,
    server: {
      version: VERSION,
      pid: process.pid,
      startedAt,
      data: options.data,
      ioEngine: engine.kind,
      ioFallbackReason: engine.fallbackReason,
      device: { path, kind: opened.kind, direct: opened.direct, sizeBytes: opened.disk.sizeBytes },
      listeners: () => urisOf(gateway, options),
      tls: options.tls?.mode ?? "notls",
      accessListsRequired: options.guardedAddress !== null,
      notReady: () => notReady(running),
    },
    mirror: () => redis?.mirror.refresh() ?? Promise.resolve(off),
    mirrorNow: () => redis?.mirror.status() ?? off,
    gateway: () => gateway.stats(),
    scrub: () => scrubs.status(),
    threads: () => front.threads(),
    engine: () => front.engineStats(),
    pool: () => front.poolStats(),
  };
}
