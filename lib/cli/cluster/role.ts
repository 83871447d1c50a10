/** What nodes and gateways have in common: how they start, what they answer, how they end. */
import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import {
  type Admin,
  type AdminFace,
  type RoleSources as AdminRoleSources,
  answering,
  ROLE_ROUTES,
  type Route,
  startAdminOf,
} from "../../admin/index.js";
import { EventLog } from "../../catalog/index.js";
import type { DialEnvironment, NodePlace } from "../../cluster/dial.js";
import { type ClusterKey, readKey } from "../../cluster/key.js";
import { readLinkCredentials } from "../../cluster/link-credentials.js";
import { Dialer, LinkTls } from "../../cluster/link-tls.js";
import { LZ4, packingWith } from "../../cluster/lz4.js";
import { writeMembers } from "../../cluster/members.js";
import { placesOf } from "../../cluster/places.js";
import type { PeerId } from "../../replica/api.js";
import type { ConfigSet } from "../../replica/config/set.js";
import type { Packing } from "../../replica/packing.js";
import { addressText } from "../../uring/address.js";
import type { Engine } from "../../uring/api.js";
import { CipherBudget } from "../../uring/cipher-memory.js";
import { openEngine } from "../../uring/engine.js";
import { holdDirectory } from "../serve/data-directory.js";
import { Parts } from "../serve/parts.js";
import { VERSION } from "../version.js";
import type { RoleOptions } from "./options.js";
import type { ClusterView, RoleStatusView } from "./views.js";

/** A process of a cluster that serves. */
export interface Role {
  /** What it prints when it is ready, a line each. */
  readonly ready: readonly string[];
  /** Keys and certificates anew, for connections to come; false without TLS. Throws LaminaError: the old ones stay. */
  reloadTls(): boolean;
  close(): Promise<void>;
}

/** What a role begins with. The directory is held from `hold` on. */
export interface RoleGround<Options extends RoleOptions> {
  readonly options: Options;
  readonly log: Logger;
  readonly parts: Parts;
  /** Wall clock. */
  readonly startedAt: number;
  readonly key: ClusterKey;
  readonly engine: Engine;
  readonly events: EventLog;
  /** Of links and clients together. */
  readonly ciphers: CipherBudget;
  /** Null: links are plain. */
  readonly linkTls: LinkTls | null;
  /** Ways to the other processes. */
  readonly dial: DialEnvironment;
  /** Of background copies; null: they are sent as they are. */
  readonly packing: Packing | null;
}

/** Makes a role of its ground. Throws LaminaError; whatever had been started is taken down then. */
export async function startRole<Options extends RoleOptions>(
  options: Options,
  log: Logger,
  compose: (ground: RoleGround<Options>) => Promise<Role>,
): Promise<Role> {
  const parts = new Parts();
  try {
    const startedAt = Date.now();
    const key = readKey(options.key);
    // A file that cannot be used is found before anything is started.
    const credentials = options.linkTls === null ? null : readLinkCredentials(options.linkTls);
    const engine = openEngine(options.engine);
    parts.add(() => engine.close());
    const events = new EventLog(() => Date.now());
    warnOfEngine(engine, events, log);
    const packing = packingWith(LZ4, (why) => {
      const text = `background copies from and to this process are not compressed: ${why}`;
      log.warn(text);
      events.record("packing-fallback", null, text);
    });
    const ciphers = new CipherBudget(engine.pool);
    const linkTls = credentials === null ? null : new LinkTls(engine.clock, ciphers, credentials);
    if (linkTls !== null) parts.add(() => linkTls.close());
    const dial = new Dialer(engine, linkTls);
    parts.add(() => dial.stop());
    const ground = { options, log, parts, startedAt, key, engine, events, ciphers, linkTls, dial, packing };
    return await compose(ground);
  } catch (error) {
    await parts.takeDown();
    throw error;
  }
}

/** Reads what links are encrypted with anew; false: they are plain. Throws LINK_TLS_FILES: the old files stay. */
export function reloadLinkTls({ options, linkTls }: RoleGround<RoleOptions>): boolean {
  if (options.linkTls === null || linkTls === null) return false;
  linkTls.use(readLinkCredentials(options.linkTls));
  return true;
}

/** Nobody else uses the data directory from now on. Returns its path. Throws LaminaError. */
export async function holdData({ engine, options, parts }: RoleGround<RoleOptions>): Promise<string> {
  const held = await holdDirectory(engine, options.data);
  parts.add(() => held.release());
  return held.path;
}

/** What came of an attempt: what was wanted, or who is missing and why. */
export type Attempt<T> = { readonly is: T } | { readonly missing: string };

/** Pause between two attempts to find the other processes of a cluster. */
const ATTEMPT_PAUSE_MS = 300;

/** Tries until it succeeds; the log says what is waited for, whenever it is something else. */
export async function persist<T>(log: Logger, attempt: () => Promise<Attempt<T>>): Promise<T> {
  let said = "";
  for (;;) {
    const outcome = await attempt();
    if ("is" in outcome) return outcome.is;
    if (outcome.missing !== said) log.info(`waits for the nodes: ${outcome.missing}`);
    said = outcome.missing;
    await sleep(ATTEMPT_PAUSE_MS);
  }
}

/** The config nodes have changed: for the next start. */
export function noteConfig(data: string, key: ClusterKey, set: ConfigSet, log: Logger): void {
  writeMembers(data, key, set);
  const config = placesOf(set).map(({ address }) => addressText(address));
  log.info({ config, version: set.version }, "the config nodes have changed");
}

/** Random, of this life of the process: nobody else has it. */
export function newPeer(): PeerId {
  return 1 + randomInt(2 ** 32) * 2 ** 15 + randomInt(2 ** 15);
}

export interface RoleSources extends AdminRoleSources {
  status(): RoleStatusView;
  cluster(): Promise<ClusterView>;
}

export interface RoleAdmin<Sources extends RoleSources> {
  readonly options: RoleOptions;
  readonly events: EventLog;
  readonly sources: Sources;
  /** Beside its own. */
  readonly routes: readonly Route<Sources>[];
  /** Plain gauges by name, exported as lamina_<name>. */
  readonly gauges: () => Readonly<Record<string, number>>;
  readonly log: Logger;
}

export async function startRoleAdmin<Sources extends RoleSources>(
  { options, events, sources, routes, gauges, log }: RoleAdmin<Sources>,
  parts: Parts,
): Promise<Admin> {
  const all: readonly Route<Sources>[] = [...ROLE_ROUTES, ...routes];
  const face: AdminFace = {
    events,
    notReady: () => (sources.status().ready ? null : (sources.status().notices[0] ?? "it is starting")),
    metrics: {
      contentType: "text/plain; version=0.0.4; charset=utf-8",
      text: () => Promise.resolve(metricsText(gauges())),
      close: () => undefined,
    },
    route: (method, path) => answering(all, sources, method, path),
  };
  const { host, port } = options.admin;
  const admin = await startAdminOf(face, {
    directory: options.data,
    host,
    port,
    onError: (error) => log.error({ err: error }, "an admin request failed"),
  });
  parts.add(() => admin.close());
  return admin;
}

function metricsText(gauges: Readonly<Record<string, number>>): string {
  return Object.entries(gauges)
    .map(([name, value]) => `# TYPE lamina_${name} gauge\nlamina_${name} ${value}\n`)
    .join("");
}

/** This process, for its status. `startedAt`: wall clock. */
export function viewProcess(
  startedAt: number,
  data: string,
): Pick<RoleStatusView, "version" | "pid" | "startedAt" | "data"> {
  return { version: VERSION, pid: process.pid, startedAt: new Date(startedAt).toISOString(), data };
}

/** Links of a process to the config nodes, for its status. */
export function viewLinks(
  config: readonly NodePlace[],
  isLinked: (place: NodePlace) => boolean,
): RoleStatusView["links"] {
  return config.map((place) => ({
    node: place.node,
    address: addressText(place.address),
    linked: isLinked(place),
  }));
}

export function clusterIdText(key: ClusterKey): string {
  return Buffer.from(key.cluster).toString("hex");
}

/** Said once when the engine is not the one that was hoped for. */
function warnOfEngine(engine: Engine, events: EventLog, log: Logger): void {
  if (engine.fallbackReason === null) return;
  log.warn(engine.fallbackReason);
  events.record("io-engine-fallback", null, engine.fallbackReason);
}
