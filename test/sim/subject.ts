/** What a run puts under test: something with the store's interface, and how to make and open one. */
import type { Routine } from "../../lib/core/routine.js";
import type { FormatOptions, Store, StoreEnvironment } from "../../lib/store/api.js";
import type { OpenStoreOptions } from "../../lib/store/options.js";

export interface Finding {
  readonly rule: string;
  readonly message: string;
}

export interface LogFrame {
  /** Of the device. */
  readonly offset: number;
  readonly length: number;
  /** A later frame says that this one had been synced: without it the log is corrupt, not at its end. */
  readonly saidSynced: boolean;
}

export interface Subject {
  readonly name: string;
  format(environment: StoreEnvironment, options: FormatOptions): Routine<unknown>;
  open(environment: StoreEnvironment, options: OpenStoreOptions): Routine<Store>;
  /** Offline check; an empty list when all is well. Absent where there is nothing to check. */
  readonly fsck?: (environment: StoreEnvironment) => Routine<readonly Finding[]>;
  /** Frames of the log that the next opening needs. Absent where there is no log. */
  readonly logFrames?: (environment: StoreEnvironment) => Routine<LogFrame[]>;
  /** Byte ranges (start, end) of one of the two copies of everything that has two. */
  readonly copyRanges?: (options: FormatOptions, second: boolean) => readonly (readonly [number, number])[];
  /**
   * Makes a device of an older format of one at rest; false when it is one already. Absent where there is no such
   * format.
   */
  readonly takeBack?: (environment: StoreEnvironment) => Routine<boolean>;
  /** Offsets of the device below this are provisioned by the caller before anything is written. */
  provisionedBytes(options: FormatOptions): number;
}
