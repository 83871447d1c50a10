/**
 * Random requests of one client with their expected outcome. Requests in flight at the same time never
 * overlap where one of them writes, so every byte that is read is known.
 */
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  ReplyMode,
} from "nbd-protocol-ts";
import { BLOCK_BYTES } from "../../../../lib/core/limits.js";
import type { Outcome, TestClient } from "./client.js";
import type { SeededRandom } from "./loop.js";
import { pattern } from "./world.js";

interface Busy {
  readonly start: number;
  readonly end: number;
  readonly writes: boolean;
}

export interface WorkloadOptions {
  readonly requests: number;
  /** Requests in flight at once. */
  readonly depth: number;
  readonly lengthMax: number;
  /** Range of the volume that is this client's own. */
  readonly from: number;
  readonly to: number;
}

export class Workload {
  readonly #client: TestClient;
  readonly #random: SeededRandom;
  readonly #options: WorkloadOptions;
  /** What the client's range must read as. */
  readonly #shadow: Uint8Array;
  readonly #busy = new Map<Outcome, Busy>();
  readonly #expected = new Map<Outcome, Uint8Array>();
  /** Bytes of requests that were encoded and not handed to the stream. */
  #begun = 0;
  done = 0;
  bytesRead = 0;
  /** The first thing that was not as it must be; empty while all is well. */
  fault = "";

  constructor(client: TestClient, random: SeededRandom, options: WorkloadOptions) {
    this.#client = client;
    this.#random = random;
    this.#options = options;
    this.#shadow = new Uint8Array(options.to - options.from);
    client.onDone = (outcome) => this.#over(outcome);
    this.#fill();
  }

  get finished(): boolean {
    return this.done === this.#options.requests;
  }

  get inFlight(): number {
    return this.#busy.size;
  }

  #fill(): void {
    while (this.#busy.size < this.#options.depth && this.#begun < this.#options.requests) {
      if (!this.#ask()) return;
    }
  }

  /** One more request; false when no range was free. */
  #ask(): boolean {
    const { from, to, lengthMax } = this.#options;
    const random = this.#random;
    for (let attempt = 0; attempt < 8; attempt++) {
      const length = 1 + random.below(random.chance(3) ? lengthMax : Math.min(lengthMax, 3 * BLOCK_BYTES));
      const offset = from + random.below(Math.max(1, to - from - length));
      const type = this.#type();
      const writes = type === NBD_CMD_WRITE || type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES;
      if (type !== NBD_CMD_FLUSH && this.#collides(offset, offset + length, writes)) continue;
      this.#begin(type, offset, length, writes);
      return true;
    }
    return false;
  }

  #type(): number {
    const dice = this.#random.below(20);
    if (dice < 8) return NBD_CMD_READ;
    if (dice < 15) return NBD_CMD_WRITE;
    if (dice === 15) return NBD_CMD_FLUSH;
    if (dice === 16) return NBD_CMD_TRIM;
    if (dice === 17) return NBD_CMD_WRITE_ZEROES;
    if (dice === 18) return NBD_CMD_CACHE;
    const { mode, contexts } = this.#client.negotiated!;
    return mode === ReplyMode.Simple || contexts.length === 0 ? NBD_CMD_READ : NBD_CMD_BLOCK_STATUS;
  }

  #collides(start: number, end: number, writes: boolean): boolean {
    // A trim touches whole blocks only, but the model's presence bits are of blocks: keep off neighbours.
    for (const busy of this.#busy.values()) {
      if (start < busy.end && busy.start < end && (writes || busy.writes)) return true;
    }
    return false;
  }

  #begin(type: number, offset: number, length: number, writes: boolean): void {
    const random = this.#random;
    const at = offset - this.#options.from;
    let flags = random.chance(8) ? NBD_CMD_FLAG_FUA : 0;
    let payload: Uint8Array | undefined;
    if (type === NBD_CMD_WRITE) {
      payload = pattern(offset, length, this.#begun + 1);
      this.#shadow.set(payload, at);
    } else if (writes) {
      this.#shadow.fill(0, at, at + length);
    } else if (type === NBD_CMD_READ) {
      const chunked = this.#client.negotiated!.mode !== ReplyMode.Simple;
      if (chunked && random.chance(4)) flags |= NBD_CMD_FLAG_DF;
    } else if (type === NBD_CMD_BLOCK_STATUS && random.chance(3)) {
      flags |= NBD_CMD_FLAG_REQ_ONE;
    }
    const none = type === NBD_CMD_FLUSH;
    const [outcome, bytes] = this.#client.encode(type, flags, none ? 0 : offset, none ? 0 : length, payload);
    this.#begun++;
    this.#busy.set(outcome, { start: none ? -1 : offset, end: none ? -1 : offset + length, writes });
    if (type === NBD_CMD_READ) this.#expected.set(outcome, this.#shadow.slice(at, at + length));
    this.#client.send(bytes);
  }

  #over(outcome: Outcome): void {
    this.#busy.delete(outcome);
    this.done++;
    const expected = this.#expected.get(outcome);
    this.#expected.delete(outcome);
    if (outcome.errno !== 0) this.#complain(`request ${outcome.type} failed with ${outcome.errno}`);
    if (expected !== undefined) {
      this.bytesRead += expected.length;
      if (!Buffer.from(outcome.data!).equals(expected)) {
        this.#complain(`a read of ${outcome.length} bytes at ${outcome.offset} returned other bytes`);
      }
    }
    this.#fill();
  }

  #complain(fault: string): void {
    if (this.fault === "") this.fault = fault;
  }
}
