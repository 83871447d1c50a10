/** The physical floor (floor.c): one thread that writes each block to three files. */

import { randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { check } from "../../../test/interop/support/process.js";
import type { Outcome } from "../measure.js";
import type { Row } from "../rows.js";
import type { Contestant, CpuByGroup } from "./contestant.js";

const COPIES = 3;
const CHUNK_BYTES = 1 << 20;

interface FloorResult {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

export class Floor implements Contestant {
  readonly name = "three-file floor";
  readonly about =
    "one C program that writes each block to three files with O_DIRECT over io_uring and waits for all: no network, no checksum, no metadata";
  readonly #program: string;
  #files: readonly string[] = [];
  #sizeBytes = 0;

  /** `program`: floor.c, built. */
  constructor(program: string) {
    this.#program = program;
  }

  takes(row: Row): boolean {
    return row.client === "fio";
  }

  start(folder: string, sizeBytes: number): Promise<void> {
    mkdirSync(folder, { recursive: true });
    this.#sizeBytes = sizeBytes;
    this.#files = Array.from({ length: COPIES }, (_, i) => join(folder, `copy${i}`));
    const chunk = randomFillSync(new Uint8Array(CHUNK_BYTES));
    for (const path of this.#files) {
      const file = openSync(path, "w");
      for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) writeSync(file, chunk);
      closeSync(file);
    }
    return Promise.resolve();
  }

  async run(row: Row, seconds: number): Promise<Outcome> {
    const text = await check(this.#program, [
      row.rw.endsWith("read") ? "read" : "write",
      row.rw.startsWith("rand") ? "random" : "sequential",
      ...[row.blockBytes, row.depth, seconds, this.#sizeBytes, row.flushEvery === undefined ? 0 : 1].map(
        String,
      ),
      ...this.#files,
    ]);
    const result = JSON.parse(text) as FloorResult;
    const iops = result.requests / result.seconds;
    return {
      ...result,
      bytes: result.requests * row.blockBytes,
      iops,
      bytesPerSecond: iops * row.blockBytes,
    };
  }

  /** It is its own client. */
  cpu(): CpuByGroup {
    return {};
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}
