/**
 * What every part of an open store shares: the disk and its helpers, the layout, and whether it has failed.
 */
import { DiskErrno } from "../core/disk.js";
import type { Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { deviceSeed, type Layout } from "./format.js";
import { MetadataIo } from "./metadata-io.js";
import type { StoreTunables } from "./options.js";

/** Thrown inside routines when the device fails; whoever runs the routine stops it and fails the store. */
export class DeviceFailure extends Error {
  override readonly name = "DeviceFailure";
}

export class Device {
  readonly env: StoreEnvironment;
  readonly layout: Layout;
  readonly tunables: StoreTunables;
  readonly seed: number;
  readonly io: MetadataIo;
  /** The pool as words, for records and tables that are built in place. */
  readonly words: Uint32Array;
  /** Number of this opening. */
  readonly incarnation: number;
  failed: string | null = null;
  /** Told whenever something that goes on beside requests has come to an end. */
  onIdle: () => void = () => undefined;
  readonly #onFail: (reason: string) => void;

  constructor(
    env: StoreEnvironment,
    layout: Layout,
    tunables: StoreTunables,
    deviceId: Uint8Array,
    incarnation: number,
    onFail: (reason: string) => void,
  ) {
    this.env = env;
    this.layout = layout;
    this.tunables = tunables;
    this.seed = deviceSeed(deviceId);
    this.incarnation = incarnation;
    this.#onFail = onFail;
    this.words = poolWords(env);
    this.io = new MetadataIo(env, this.seed, tunables.writeRetries);
  }

  /** From here on the device acknowledges nothing (invariant 22). Only the first reason counts. */
  fail(reason: string): void {
    if (this.failed !== null) return;
    this.failed = reason;
    this.#onFail(reason);
  }

  /** A routine has ended with `error`. What is not a failure of the device is a mistake of the program. */
  failWith(error: unknown): void {
    this.fail(error instanceof Error ? error.message : String(error));
    if (!(error instanceof DeviceFailure)) throw error;
  }

  /** Ends a routine of a device that has failed meanwhile. */
  check(): void {
    if (this.failed !== null) throw new DeviceFailure(this.failed);
  }
}

export function poolWords(env: Pick<StoreEnvironment, "pool">): Uint32Array {
  const { bytes } = env.pool;
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
}

/** The file system has no room: never an error of the device. */
export function isFull(result: number): boolean {
  return result === DiskErrno.ENOSPC || result === DiskErrno.EDQUOT;
}

/** Goes on after `delayMs`, unless the device has failed by then. */
export function* pause(device: Device, delayMs: number): Routine<void> {
  yield (resume) => {
    device.env.clock.setTimer(delayMs, () => resume(0));
  };
  device.check();
}
