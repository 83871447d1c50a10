/**
 * A verified load: several connections, each with many requests in flight, that overlap on purpose. Everything
 * is told to the history; reads under way are checked as they come back.
 */
import { CommandFlag, Disconnected, NbdClient, NbdError } from "../../interop/support/nbd-client.js";
import type { TestServer } from "../../interop/support/server.js";
import type { History } from "./history.js";
import type { SeededRandom } from "./random.js";
import { decodeSectors, encodeSectors, SECTOR_BYTES } from "./sector-codec.js";

/** Who serves the volume. */
export interface Where extends Pick<TestServer, "host" | "port"> {
  /** Its unix socket, where it has one instead. */
  readonly path?: string | null;
}

export function attach({ host, port, path }: Where, volume: string): Promise<NbdClient> {
  return path == null ? NbdClient.connect(host, port, volume) : NbdClient.connectTo(path, volume);
}

export interface LoadShape {
  readonly connections: number;
  /** Requests in flight per connection. */
  readonly depth: number;
  /** Sectors at the beginning of the volume that half of all requests hit. */
  readonly hotSectors: number;
}

export const LOAD_DEFAULT: LoadShape = { connections: 4, depth: 16, hotSectors: 512 };

/** Lengths in sectors: less than a block, blocks, many blocks, over an extent's border. */
const LENGTHS = [1, 3, 7, 8, 8, 8, 8, 16, 32, 128, 128, 509, 2048, 2051];

export class Load {
  readonly counts = { reads: 0, writes: 0, fua: 0, flushes: 0, zeroes: 0, trims: 0, unfinished: 0 };
  /** Errors that the server answered with; there must be none. */
  readonly errors: string[] = [];
  readonly #history: History;
  readonly #random: SeededRandom;
  readonly #shape: LoadShape;
  #stopping = false;
  #clients: NbdClient[] = [];
  #workers: Promise<void>[] = [];

  constructor(history: History, random: SeededRandom, shape: LoadShape = LOAD_DEFAULT) {
    this.#history = history;
    this.#random = random;
    this.#shape = shape;
  }

  async start(server: Where, volume: string): Promise<void> {
    this.#stopping = false;
    const { connections, depth } = this.#shape;
    this.#clients = [];
    for (let i = 0; i < connections; i++) {
      this.#clients.push(await attach(server, volume));
    }
    this.#workers = this.#clients.flatMap((client) =>
      Array.from({ length: depth }, () => this.#work(client)),
    );
  }

  /** Waits for what is in flight and ends. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#workers);
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  /** Waits until every connection is dead. */
  async cutOff(): Promise<void> {
    await Promise.all(this.#workers);
    for (const client of this.#clients) client.destroy();
  }

  /** Ends every connection from here, whatever it is owed. */
  async abandon(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await Promise.all(this.#workers);
  }

  async #work(client: NbdClient): Promise<void> {
    while (!this.#stopping) {
      try {
        await this.#one(client);
      } catch (error) {
        if (error instanceof Disconnected) {
          this.counts.unfinished += 1;
          return;
        }
        if (!(error instanceof NbdError)) throw error;
        this.errors.push(error.message);
        return;
      }
    }
  }

  #range(): { sector: number; count: number } {
    const random = this.#random;
    const count = random.pick(LENGTHS);
    const limit = random.chance(0.5) ? this.#shape.hotSectors : this.#history.sectors;
    const last = Math.max(0, Math.min(limit, this.#history.sectors - count));
    const sector = random.between(0, last + 1);
    return { sector, count: Math.min(count, this.#history.sectors - sector) };
  }

  async #one(client: NbdClient): Promise<void> {
    const { sector, count } = this.#range();
    const fua = this.#random.chance(0.15) ? CommandFlag.FUA : 0;
    const choice = this.#random.next();
    if (choice < 0.62) return this.#write(client, sector, count, fua);
    if (choice < 0.8) return this.#read(client, sector, count);
    if (choice < 0.88) return this.#zero(client, sector, count, fua);
    if (choice < 0.94) return this.#trim(client, sector, count, fua);
    this.counts.flushes += 1;
    return client.flush();
  }

  async #write(client: NbdClient, sector: number, count: number, fua: number): Promise<void> {
    const operation = this.#history.begin("write", sector, count);
    await client.write(sector * SECTOR_BYTES, encodeSectors(operation.id, sector, count), fua);
    this.#history.acknowledge(operation);
    this.counts.writes += 1;
    if (fua !== 0) this.counts.fua += 1;
  }

  async #read(client: NbdClient, sector: number, count: number): Promise<void> {
    const reading = this.#history.beginRead(sector, count);
    const bytes = await client.read(sector * SECTOR_BYTES, count * SECTOR_BYTES);
    this.#history.endRead(reading, decodeSectors(bytes, sector));
    this.counts.reads += 1;
  }

  async #zero(client: NbdClient, sector: number, count: number, fua: number): Promise<void> {
    const flags = fua | (this.#random.chance(0.5) ? CommandFlag.NO_HOLE : 0);
    const operation = this.#history.begin("zero", sector, count);
    await client.zero(sector * SECTOR_BYTES, count * SECTOR_BYTES, flags);
    this.#history.acknowledge(operation);
    this.counts.zeroes += 1;
  }

  async #trim(client: NbdClient, sector: number, count: number, fua: number): Promise<void> {
    const operation = this.#history.begin("trim", sector, count);
    await client.trim(sector * SECTOR_BYTES, count * SECTOR_BYTES, fua);
    this.#history.acknowledge(operation);
    this.counts.trims += 1;
  }
}

/** Sectors of one verifying read. */
const VERIFY_SECTORS = 2048;

/** Reads what was touched since the last time, or all of the volume, and compares it with the history. */
export async function verify(
  server: Where,
  volume: string,
  history: History,
  scope: "touched" | "all",
): Promise<void> {
  const client = await attach(server, volume);
  try {
    const touched = history.takeTouched();
    const pieces = scope === "all" ? allPieces(history.sectors) : piecesOf(touched);
    for (const sector of pieces) {
      const count = Math.min(VERIFY_SECTORS, history.sectors - sector);
      const reading = history.beginRead(sector, count);
      const bytes = await client.read(sector * SECTOR_BYTES, count * SECTOR_BYTES);
      history.endRead(reading, decodeSectors(bytes, sector));
    }
  } finally {
    await client.close();
  }
}

function allPieces(sectors: number): number[] {
  return Array.from({ length: Math.ceil(sectors / VERIFY_SECTORS) }, (_, i) => i * VERIFY_SECTORS);
}

function piecesOf(sectors: readonly number[]): number[] {
  return [...new Set(sectors.map((sector) => sector - (sector % VERIFY_SECTORS)))];
}
