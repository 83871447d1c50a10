/** A gateway over model volumes, and clients of it, in one loop. */
import type { ClientHandshakeOptions } from "nbd-protocol-ts";
import { MIB } from "../../../../lib/core/limits.js";
import type { Connection } from "../../../../lib/gateway/connection.js";
import { Access } from "../../../../lib/gateway/exports.js";
import { GatewayServer, type ServerOptions } from "../../../../lib/gateway/server.js";
import type { OpenVolume } from "../../../../lib/volume/registry-api.js";
import { TestClient } from "./client.js";
import { Loop, SeededRandom } from "./loop.js";
import { ModelVolume } from "./model-volume.js";
import { MemoryStream, type StreamOptions } from "./stream.js";

export interface WorldOptions {
  readonly poolBytes?: number;
  /** Order of events; without one, first come, first served. */
  readonly seed?: number;
  readonly volumeBytes?: number;
  readonly server?: Partial<ServerOptions>;
}

export class World {
  readonly random: SeededRandom;
  readonly loop: Loop;
  readonly volumes = new Map<string, ModelVolume>();
  readonly server: GatewayServer;
  readonly ended: string[] = [];
  readonly #freeAtStart: number;
  opens = 0;
  releases = 0;
  /** Opening answers only when this is called. */
  holdOpens = false;
  readonly heldOpens: (() => void)[] = [];

  constructor(options: WorldOptions = {}) {
    this.random = new SeededRandom(options.seed ?? 1);
    this.loop = new Loop(options.poolBytes ?? 8 * MIB, options.seed === undefined ? null : this.random);
    this.#freeAtStart = this.loop.pool.freeBytes;
    this.addVolume("v", options.volumeBytes ?? 4 * MIB);
    this.server = new GatewayServer(
      { pool: this.loop.pool, clock: this.loop, ticker: this.loop },
      {
        source: {
          list: () => [...this.volumes.values()].map(({ record }) => record),
          byName: (name) => this.volumes.get(name)?.record,
          open: (name, done) => this.#open(name, done),
        },
        policy: { accessOf: () => Access.ReadWrite },
        tls: null,
        onEnd: (_connection: Connection, reason: string) => this.ended.push(reason),
        ...options.server,
      },
    );
  }

  get volume(): ModelVolume {
    return this.volumes.get("v")!;
  }

  addVolume(name: string, sizeBytes: number): ModelVolume {
    const volume = new ModelVolume(this.loop, name, sizeBytes, this.volumes.size + 1);
    this.volumes.set(name, volume);
    return volume;
  }

  #open(name: string, done: (opened: OpenVolume | null, reason: string) => void): void {
    this.opens++;
    const answer = (): void => {
      const volume = this.volumes.get(name);
      if (volume === undefined) {
        done(null, `there is no volume named '${name}'`);
        return;
      }
      done({ volume, record: volume.record, release: () => this.releases++ }, "");
    };
    if (this.holdOpens) this.heldOpens.push(answer);
    else this.loop.post(answer);
  }

  stream(options: StreamOptions = {}): MemoryStream {
    const stream = new MemoryStream(this.loop, options);
    this.server.accept(stream);
    return stream;
  }

  /** A client that has been accepted; its handshake runs as the loop does. */
  connect(handshake: ClientHandshakeOptions = {}, options: StreamOptions = {}): TestClient {
    const stream = new MemoryStream(this.loop, options);
    const client = new TestClient(stream, { exportName: "v", ...handshake });
    this.server.accept(stream);
    return client;
  }

  /** A client in the transmission phase. */
  attach(handshake: ClientHandshakeOptions = {}, options: StreamOptions = {}): TestClient {
    const client = this.connect(handshake, options);
    this.loop.settle();
    if (client.transmission === null) throw new Error(`no transmission: ${client.complaint}`);
    return client;
  }

  /** Closes the server; returns what is still held of the pool, which must be nothing. */
  close(): { closed: boolean; leakedBytes: number; openVolumes: number } {
    let closed = false;
    this.server.close(() => {
      closed = true;
    });
    this.loop.advance(60_000);
    const leakedBytes = this.#freeAtStart - this.loop.pool.freeBytes;
    return { closed, leakedBytes, openVolumes: this.opens - this.releases };
  }
}

export const CLEAN = { closed: true, leakedBytes: 0, openVolumes: 0 };

/** Bytes that no other place has: found again at the wrong address, they show. */
export function pattern(offset: number, length: number, salt = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++)
    bytes[i] = (((offset + i) * 131) ^ (((offset + i) >>> 9) * 7) ^ salt) & 0xff;
  return bytes;
}

/** All forms of replies: kernel, QEMU and libnbd today, and with extended headers. */
export const MODES: readonly { readonly name: string; readonly options: ClientHandshakeOptions }[] = [
  { name: "simple", options: { structuredReplies: false, extendedHeaders: false } },
  { name: "structured", options: { extendedHeaders: false, contexts: ["base:allocation"] } },
  { name: "extended", options: { contexts: ["base:allocation"] } },
];
