/**
 * The server that a file of rows is about: one process for the file, one volume or more, reached over TCP and
 * over a unix socket. Each row runs on both.
 */
import { join } from "node:path";
import type { Test } from "tap";
import t from "tap";
import { scratchDirectory } from "../../interop/support/scratch.js";
import { LaminaServer } from "../../interop/support/server.js";
import type { Place } from "../raw-socket.js";
import { RawSocket } from "../raw-socket.js";

export const MIB: number = 1 << 20;
export const BLOCK = 4096;
export const VOL = "vol";
export const VOL_BYTES: number = 64 * MIB;

export interface Live {
  readonly server: LaminaServer;
  readonly tcp: Place;
  readonly unix: Place;
}

export interface LiveOptions {
  readonly args?: readonly string[];
  readonly capacity?: string;
  /** Size of VOL, as the command line writes it. */
  readonly size?: string;
}

/** Starts a server with an empty volume VOL; it is gone when `t` ends. */
export async function serveLive(t: Pick<Test, "teardown">, options: LiveOptions = {}): Promise<Live> {
  const data = scratchDirectory();
  const path = join(data, "nbd.sock");
  const args = ["--listen", `unix:${path}`, ...(options.args ?? [])];
  const server = new LaminaServer({ args, capacity: options.capacity ?? "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOL, options.size ?? "64M");
  return { server, tcp: tcpOf(server), unix: { kind: "unix", path } };
}

export function tcpOf(server: LaminaServer): Place {
  return { kind: "tcp", host: server.host, port: server.port };
}

/** One row of the conformance list, over TCP and over the unix socket. */
export type RowTest = (name: string, body: (t: Test, place: Place) => Promise<void>) => void;

export function rowsOf(live: Live): RowTest {
  return (name, body) => {
    t.test(name, async (t) => {
      for (const place of [live.tcp, live.unix]) {
        await t.test(place.kind, async (t) => {
          await body(t, place);
          const after = await RawSocket.connect(place);
          t.equal((await after.exactly(18)).toString("latin1", 0, 8), "NBDMAGIC", "the server lives");
          after.destroy();
        });
      }
    });
  };
}

/** `length` bytes that differ from place to place and from seed to seed. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = (seed * 0x9e3779b1 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
