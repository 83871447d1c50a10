/**
 * A simulated Redis, and the connections that the mirror makes to it.
 *
 * Fault models
 *  - Lost suffix: the state of a while ago, as after a crash with an append-only file that was not synced, or a
 *    failover to a replica that lagged behind.
 *  - Old copy: any older state, as after a restored backup.
 *  - Wipe: nothing.
 *    Each of the three with the connections broken or, as after FLUSHALL, without anyone being told.
 *  - Hang: for a while no command is answered; it is executed all the same, now or at the end, or it is lost.
 *  - Applied but timed out: the command is executed, and its connection breaks before the answer.
 *  - Refused: nobody can connect.
 *
 * Commands of one connection are executed in their order; those of a connection that its client has given up may be
 * executed later still. Nothing of a client of a dead process is answered.
 */
import type { MirrorClient } from "../../lib/catalog/mirror-client.js";
import { STALE } from "../../lib/catalog/scripts.js";
import type { Prng } from "./prng.js";
import type { EventTarget } from "./queue.js";
import type { SimProcess, SimWorld } from "./world.js";

/** A stream's entries, a hash, a set or a string. */
type Value = string | Map<string, string> | Set<string> | [id: string, fields: string[]][];
type Database = Map<string, Value>;

/** States that an old copy can be of. */
const COPIES_MAX = 8;
const LATENCY_US = 200;
const LOSSES = ["lost-suffix", "old-copy", "wipe"] as const;
const FAULTS = [...LOSSES, "hang", "refuse", "break"] as const;
const EVENT_REQUEST = 40;
const EVENT_ANSWER = 41;
const EVENT_BREAK = 42;
const NO_EVENT = "0-0";

interface Command {
  readonly connection: SimRedisConnection;
  readonly name: string;
  readonly args: readonly (string | number)[];
  readonly resolve: (answer: never) => void;
  readonly reject: (error: Error) => void;
  answer: unknown;
}

export interface RedisHost {
  readonly world: SimWorld;
  /** A promise has an outcome: what waits for it must have a turn. */
  promiseMoved(): void;
}

export class SimRedis implements EventTarget {
  readonly #host: RedisHost;
  readonly #random: Prng;
  #database: Database = new Map();
  /** Copies of the past, oldest first. */
  readonly #copies: Database[] = [new Map()];
  #hangUntilUs = 0;
  #refuseUntilUs = 0;
  readonly #commands = new Map<number, Command>();
  readonly #connections = new Set<SimRedisConnection>();
  #tag = 0;

  constructor(host: RedisHost, random: Prng) {
    this.#host = host;
    this.#random = random;
  }

  /** Any of the faults, or a copy of what is there now for one that comes later. */
  maybeFault(): void {
    const random = this.#random;
    if (random.chance(0.3)) this.#copy();
    if (random.chance(0.1)) this.#fault(random.pick(FAULTS));
  }

  /** Loses or gets back something, once. */
  lose(): void {
    this.#fault(this.#random.pick(LOSSES));
  }

  #fault(fault: (typeof FAULTS)[number]): void {
    const { world } = this.#host;
    const random = this.#random;
    const until = world.nowUs + random.between(1000, 12_000_000);
    world.coverage.count(`fault:redis-${fault}`);
    if (world.trace !== null) world.say(`fault: Redis ${fault}`);
    if (fault === "hang") this.#hangUntilUs = until;
    else if (fault === "refuse") this.#refuseUntilUs = until;
    else if (fault === "wipe") this.#database = new Map();
    else if (fault === "lost-suffix") this.#database = cloned(this.#copies.at(-1)!);
    else if (fault === "old-copy") this.#database = cloned(random.pick(this.#copies));
    if (fault === "refuse" || fault === "break" || random.chance(0.5)) this.#breakAll();
  }

  endFaults(): void {
    this.#hangUntilUs = 0;
    this.#refuseUntilUs = 0;
  }

  #copy(): void {
    this.#copies.push(cloned(this.#database));
    if (this.#copies.length > COPIES_MAX) this.#copies.shift();
  }

  #breakAll(): void {
    for (const connection of [...this.#connections]) connection.break();
  }

  /** As connectRedis does it. */
  connect(process: SimProcess): Promise<MirrorClient> {
    return new Promise((resolve, reject) => {
      const connection = new SimRedisConnection(this, process);
      const settle = (): void => {
        this.#host.promiseMoved();
        if (this.#host.world.nowUs < this.#refuseUntilUs) reject(new Error("connection refused"));
        else {
          this.#connections.add(connection);
          resolve(connection);
        }
      };
      this.#host.world.at(this.#latency(), { simEvent: settle }, process, EVENT_BREAK, 0);
    });
  }

  // --- for SimRedisConnection ----------------------------------------------------------------------------

  submit(connection: SimRedisConnection, name: string, args: readonly (string | number)[]): Promise<never> {
    return new Promise((resolve, reject) => {
      const tag = this.#tag++;
      this.#commands.set(tag, { connection, name, args, resolve, reject, answer: null });
      const { world } = this.#host;
      connection.queue.push(tag);
      world.at(this.#latency(), this, null, EVENT_REQUEST, tag);
    });
  }

  left(connection: SimRedisConnection): void {
    this.#connections.delete(connection);
    // What was under way may be executed yet.
    if (this.#random.chance(0.5)) connection.dark = true;
    for (const command of this.#commands.values())
      if (command.connection === connection) this.#reject(command);
  }

  #reject(command: Command): void {
    if (!command.connection.process.alive) return;
    this.#host.promiseMoved();
    command.reject(new Error("the connection was closed"));
  }

  simEvent(code: number, tag: number): void {
    const command = this.#commands.get(tag);
    if (command === undefined) return;
    if (code === EVENT_REQUEST) this.#request(tag, command);
    else this.#answer(tag, command);
  }

  #request(tag: number, command: Command): void {
    const { world } = this.#host;
    const { connection } = command;
    const wait = this.#hangUntilUs - world.nowUs;
    if (wait > 0 && this.#random.chance(0.1)) connection.dark = true;
    if (wait > 0 || connection.queue[0] !== tag) {
      world.at(Math.max(1, wait), this, null, EVENT_REQUEST, tag);
      return;
    }
    connection.queue.shift();
    if (connection.dark) {
      if (connection.closed) this.#commands.delete(tag);
      return;
    }
    command.answer = execute(this.#database, command.name, command.args.map(String));
    world.coverage.count("redis:commands");
    world.at(this.#latency(), this, null, EVENT_ANSWER, tag);
  }

  #answer(tag: number, command: Command): void {
    this.#commands.delete(tag);
    const { connection } = command;
    if (connection.closed || !connection.process.alive) return;
    this.#host.promiseMoved();
    command.resolve(command.answer as never);
  }

  #latency(): number {
    return 1 + this.#random.below(LATENCY_US);
  }

  // --- what it holds -------------------------------------------------------------------------------------

  hash(key: string): ReadonlyMap<string, string> {
    const value = this.#database.get(key);
    return value instanceof Map ? value : new Map();
  }

  keys(): string[] {
    return [...this.#database.keys()].sort();
  }
}

class SimRedisConnection implements MirrorClient {
  readonly process: SimProcess;
  readonly #redis: SimRedis;
  /** Commands that have not been executed, in their order. */
  readonly queue: number[] = [];
  /** Nothing that is sent on it arrives any more. */
  dark = false;
  closed = false;

  constructor(redis: SimRedis, process: SimProcess) {
    this.#redis = redis;
    this.process = process;
  }

  break(): void {
    if (this.closed) return;
    this.closed = true;
    this.#redis.left(this);
  }

  disconnect(): void {
    this.break();
  }

  #ask<T>(name: string, ...args: readonly (string | number)[]): Promise<T> {
    // What a dead process goes on to ask is never answered.
    if (!this.process.alive) return new Promise<never>(() => undefined);
    if (this.closed) return Promise.reject(new Error("the connection is closed"));
    return this.#redis.submit(this, name, args);
  }

  get(key: string): Promise<string | null> {
    return this.#ask("get", key);
  }
  set(key: string, value: string): Promise<unknown> {
    return this.#ask("set", key, value);
  }
  hget(key: string, field: string): Promise<string | null> {
    return this.#ask("hget", key, field);
  }
  hset(key: string, field: string, value: string): Promise<unknown> {
    return this.#ask("hset", key, field, value);
  }
  hgetall(key: string): Promise<Record<string, string>> {
    return this.#ask("hgetall", key);
  }
  hmget(key: string, ...fields: string[]): Promise<(string | null)[]> {
    return this.#ask("hmget", key, ...fields);
  }
  smembers(key: string): Promise<string[]> {
    return this.#ask("smembers", key);
  }
  unlink(...keys: string[]): Promise<unknown> {
    return this.#ask("unlink", ...keys);
  }
  xrevrange(key: string): Promise<[id: string, fields: string[]][]> {
    return this.#ask("xrevrange", key);
  }
  laminaChangeBucket(...args: string[]): Promise<unknown> {
    return this.#ask("changeBucket", ...args);
  }
  laminaPutRecord(...args: string[]): Promise<unknown> {
    return this.#ask("putRecord", ...args);
  }
  laminaPutCatalogue(...args: string[]): Promise<unknown> {
    return this.#ask("putCatalogue", ...args);
  }
  laminaAppendEvents(...args: string[]): Promise<unknown> {
    return this.#ask("appendEvents", ...args);
  }
  hdel(key: string, field: string): Promise<unknown> {
    return this.#ask("hdel", key, field);
  }
  laminaClaimShared(...args: string[]): Promise<unknown> {
    return this.#ask("claimShared", ...args);
  }
  laminaBeat(...args: string[]): Promise<unknown> {
    return this.#ask("beat", ...args);
  }
  laminaAppendOwnEvents(...args: string[]): Promise<unknown> {
    return this.#ask("appendOwnEvents", ...args);
  }
  laminaClaim(...args: string[]): Promise<unknown> {
    return this.#ask("claim", ...args);
  }
}

// --- commands, and the scripts of lib/catalog/scripts.ts as they are there ---------------------------------

function execute(database: Database, name: string, args: readonly string[]): unknown {
  const [key = "", field = ""] = args;
  switch (name) {
    case "get":
      return stringAt(database, key);
    case "set":
      database.set(key, field);
      return "OK";
    case "hget":
      return mapAt(database, key)?.get(field) ?? null;
    case "hset":
      mapFor(database, key).set(field, args[2]!);
      return 1;
    case "hdel":
      return Number(mapAt(database, key)?.delete(field) ?? false);
    case "hgetall":
      return Object.fromEntries(mapAt(database, key) ?? []);
    case "hmget":
      return args.slice(1).map((one) => mapAt(database, key)?.get(one) ?? null);
    case "smembers":
      return [...(setAt(database, key) ?? [])];
    case "unlink":
      for (const one of args) database.delete(one);
      return args.length;
    case "xrevrange":
      return streamAt(database, key).slice(-1);
    case "changeBucket":
      return changeBucket(database, args);
    case "putRecord":
      return putRecord(database, args);
    case "putCatalogue":
      return putCatalogue(database, args);
    case "appendEvents":
      return appendEvents(database, args);
    case "claim":
      return claim(database, args);
    default:
      throw new Error(`the simulated Redis has no ${name}`);
  }
}

function changeBucket(database: Database, args: readonly string[]): string {
  const [stamp, buckets, bucket, expected, next, name, empty, value, count] = args as string[] & {
    length: 9;
  };
  if (stringAt(database, stamp!) !== expected) return STALE;
  database.set(stamp!, next!);
  if (empty === "1") database.delete(bucket!);
  const fields = args.slice(9);
  const sets = fields.slice(0, Number(count));
  for (const field of sets) mapFor(database, bucket!).set(field, value!);
  for (const field of fields.slice(Number(count))) mapAt(database, bucket!)?.delete(field);
  if (mapAt(database, bucket!)?.size === 0) database.delete(bucket!);
  const names = setAt(database, buckets!) ?? new Set<string>();
  if (database.has(bucket!)) names.add(name!);
  else names.delete(name!);
  if (names.size > 0) database.set(buckets!, names);
  else database.delete(buckets!);
  return "OK";
}

function putRecord(database: Database, args: readonly string[]): string {
  const [stamp = "", record = "", expected, next = ""] = args;
  if (stringAt(database, stamp) !== expected) return STALE;
  database.set(stamp, next);
  database.set(record, pairs(args.slice(4)));
  return "OK";
}

function putCatalogue(database: Database, args: readonly string[]): string {
  const [identity = "", volumes = "", names = "", store, session, expected, serial = ""] = args;
  const found = mapAt(database, identity);
  if (found?.get("store") !== store || found?.get("session") !== session) return STALE;
  if (found?.get("serial") !== expected) return STALE;
  found!.set("serial", serial);
  const byId = pairs(args.slice(7));
  database.delete(volumes);
  database.delete(names);
  if (byId.size === 0) return "OK";
  database.set(volumes, byId);
  database.set(names, new Map([...byId].map(([id, name]) => [name, id])));
  return "OK";
}

function appendEvents(database: Database, args: readonly string[]): string {
  const [key = "", expected] = args;
  const stream = streamAt(database, key);
  if ((stream.at(-1)?.[0] ?? NO_EVENT) !== expected) return STALE;
  for (let i = 3; i + 3 < args.length; i += 4) stream.push([args[i]!, args.slice(i + 1, i + 4)]);
  database.set(key, stream);
  return "OK";
}

function claim(database: Database, args: readonly string[]): string {
  const [key = "", store = "", schema = "", session = ""] = args;
  const there = mapAt(database, key)?.get("store");
  if (there !== undefined && there !== store) return there;
  const identity = mapFor(database, key);
  for (const [field, value] of Object.entries({ store, schema, session, serial: "0" })) {
    identity.set(field, value);
  }
  return "OK";
}

function stringAt(database: Database, key: string): string | null {
  const value = database.get(key);
  return typeof value === "string" ? value : null;
}

function mapAt(database: Database, key: string): Map<string, string> | undefined {
  const value = database.get(key);
  return value instanceof Map ? value : undefined;
}

function mapFor(database: Database, key: string): Map<string, string> {
  const there = mapAt(database, key);
  if (there !== undefined) return there;
  const made = new Map<string, string>();
  database.set(key, made);
  return made;
}

function setAt(database: Database, key: string): Set<string> | undefined {
  const value = database.get(key);
  return value instanceof Set ? value : undefined;
}

function streamAt(database: Database, key: string): [id: string, fields: string[]][] {
  const value = database.get(key);
  return Array.isArray(value) ? value : [];
}

function pairs(flat: readonly string[]): Map<string, string> {
  const map = new Map<string, string>();
  for (let i = 0; i + 1 < flat.length; i += 2) map.set(flat[i]!, flat[i + 1]!);
  return map;
}

function cloned(database: Database): Database {
  return structuredClone(database);
}
