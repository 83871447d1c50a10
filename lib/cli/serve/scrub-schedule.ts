/**
 * Scrub every 14 days: when the next one is due outlives restarts, in a small file of the data directory.
 *
 * Invariants
 *  1. At most one SCRUB_PERIOD lies between two ends of a scrub plus the time that a scrub takes, however often
 *     the server restarts: a restart never moves `nextAt` into the future.
 *  2. Wall time decides nothing but when a background read begins. A clock that jumps makes a scrub early, or
 *     late by one period at most.
 *  3. The file is replaced as a whole. Without it, or with another device's, counting begins now.
 */
import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import type { Clock, Timer } from "../../core/clock.js";
import type { Store, StoreStats } from "../../store/api.js";

const DAY_MS = 24 * 60 * 60 * 1000;
export const SCRUB_PERIOD_MS = 14 * DAY_MS;
/** A scrub may take half of the period: a device too large for the usual pace gets a faster one. */
const PASS_MS_MAX = SCRUB_PERIOD_MS / 2;
/** How often it is looked whether one is due or has ended. */
export const CHECK_INTERVAL_MS = 60_000;
/** A server that has just started has better things to read. */
export const QUIET_AFTER_START_MS = 10 * 60_000;

const stateFile = z.object({
  device: z.string(),
  lastEndedAt: z.iso.datetime().nullable(),
  nextAt: z.iso.datetime(),
});

export interface ScrubScheduleOptions {
  readonly clock: Clock;
  readonly store: Pick<Store, "stats" | "startScrub">;
  readonly deviceId: string;
  readonly path: string;
  /** Bytes per second, at least. */
  readonly pace: number;
  readonly onStarted: () => void;
  readonly onEnded: () => void;
  /** The file cannot be written: told once, tried again at each check. */
  readonly onUnsaved: (reason: string) => void;
}

export interface ScrubStatus {
  readonly running: boolean;
  /** Wall clock; null when none has ended yet. */
  readonly lastEndedAt: number | null;
  /** Wall clock. In the past while one runs, or waits for the device to be settled. */
  readonly nextAt: number;
}

export class ScrubSchedule {
  readonly #options: ScrubScheduleOptions;
  readonly #quietUntil: number;
  #lastEndedAt: number | null;
  #nextAt: number;
  /** Passes of the store that are accounted for. */
  #passes: number;
  #unsaved: boolean;
  #complained = false;
  #saving: Promise<void> = Promise.resolve();
  #timer: Timer | null = null;

  /** Never rejects: a file that cannot be read is one that is not there. */
  static async open(options: ScrubScheduleOptions): Promise<ScrubSchedule> {
    const found = await readState(options.path, options.deviceId);
    const schedule = new ScrubSchedule(options, found);
    await schedule.#save();
    schedule.#wait();
    return schedule;
  }

  private constructor(
    options: ScrubScheduleOptions,
    found: Pick<ScrubStatus, "lastEndedAt" | "nextAt"> | null,
  ) {
    const { clock, store } = options;
    this.#options = options;
    this.#quietUntil = clock.now() + QUIET_AFTER_START_MS;
    this.#passes = store.stats().scrub.passes;
    this.#lastEndedAt = found?.lastEndedAt ?? null;
    this.#nextAt = found?.nextAt ?? clock.wall() + SCRUB_PERIOD_MS;
    this.#unsaved = found === null;
  }

  status(): ScrubStatus {
    const { running } = this.#options.store.stats().scrub;
    return { running, lastEndedAt: this.#lastEndedAt, nextAt: this.#nextAt };
  }

  /** A scrub that runs is left to the store. */
  async close(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    this.#noticeEnd(this.#options.store.stats());
    await this.#save();
  }

  #wait(): void {
    this.#timer = this.#options.clock.setTimer(CHECK_INTERVAL_MS, () => {
      this.#check();
      this.#wait();
    });
  }

  #check(): void {
    const { clock, store } = this.#options;
    const stats = store.stats();
    this.#noticeEnd(stats);
    const latest = clock.wall() + SCRUB_PERIOD_MS;
    if (this.#nextAt > latest) {
      // The clock has been set back.
      this.#nextAt = latest;
      this.#unsaved = true;
    }
    if (this.#isDue(stats)) {
      store.startScrub(this.#pace(stats));
      this.#options.onStarted();
    }
    void this.#save();
  }

  /** Passes that an operator asked for count as well. */
  #noticeEnd({ scrub }: StoreStats): void {
    if (scrub.passes === this.#passes) return;
    this.#passes = scrub.passes;
    this.#lastEndedAt = scrub.lastPassEndedAt;
    this.#nextAt = scrub.lastPassEndedAt + SCRUB_PERIOD_MS;
    this.#unsaved = true;
    this.#options.onEnded();
  }

  /** A device that is being settled after a power loss is read anyhow, and scrub leaves out what is not settled. */
  #isDue({ scrub, failed, lossy }: StoreStats): boolean {
    const { clock } = this.#options;
    if (scrub.running || failed !== null || lossy) return false;
    return clock.now() >= this.#quietUntil && clock.wall() >= this.#nextAt;
  }

  #pace({ liveSlots, slotBytes }: StoreStats): number {
    return Math.max(this.#options.pace, Math.ceil((liveSlots * slotBytes * 1000) / PASS_MS_MAX));
  }

  /** One write at a time; resolves when what is true now is written, or cannot be. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write());
    return this.#saving;
  }

  async #write(): Promise<void> {
    if (!this.#unsaved) return;
    this.#unsaved = false;
    const { path, deviceId, onUnsaved } = this.#options;
    try {
      await replaceFile(path, encodeState(deviceId, this.#lastEndedAt, this.#nextAt));
      this.#complained = false;
    } catch (error) {
      this.#unsaved = true;
      if (!this.#complained) onUnsaved(error instanceof Error ? error.message : String(error));
      this.#complained = true;
    }
  }
}

function encodeState(device: string, lastEndedAt: number | null, nextAt: number): string {
  const iso = (wall: number): string => new Date(wall).toISOString();
  const state: z.infer<typeof stateFile> = {
    device,
    lastEndedAt: lastEndedAt === null ? null : iso(lastEndedAt),
    nextAt: iso(nextAt),
  };
  return `${JSON.stringify(state)}\n`;
}

async function readState(
  path: string,
  deviceId: string,
): Promise<Pick<ScrubStatus, "lastEndedAt" | "nextAt"> | null> {
  try {
    const { device, lastEndedAt, nextAt } = stateFile.parse(JSON.parse(await readFile(path, "utf8")));
    if (device !== deviceId) return null;
    return {
      lastEndedAt: lastEndedAt === null ? null : Date.parse(lastEndedAt),
      nextAt: Date.parse(nextAt),
    };
  } catch {
    return null;
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  const fresh = `${path}.new`;
  const file = await open(fresh, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, path);
  const directory = await open(dirname(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
