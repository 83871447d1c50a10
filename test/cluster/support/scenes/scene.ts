/** What happens to a cluster in one round of chaos, and what a scene may use for it. */
import type { Cluster, Station } from "../cluster.js";
import type { History } from "../history.js";
import type { Load } from "../load.js";
import type { SeededRandom } from "../random.js";

/** What only some clusters have. */
export type Need = "network" | "disks" | "redis";

export interface Scene {
  readonly name: string;
  readonly needs?: Need;
  /**
   * A load runs when it begins. When it ends every process runs, nothing is cut or full, and no load runs. What is
   * wrong it says with `stage.problem`, or throws.
   */
  play(stage: Stage): Promise<void>;
}

export interface Span {
  readonly least: number;
  readonly most: number;
}

export interface Stage {
  readonly cluster: Cluster;
  readonly volume: string;
  readonly random: SeededRandom;
  readonly history: History;
  readonly load: Load;
  /** The gateway that clients use. */
  at: Station;
  /** Milliseconds for which nodes stand still or are cut off at most. */
  readonly awayMsMax: number;
  /** Another gateway is used from now on, with this probability. */
  moveOn(probability: number): void;
  /** Lets the load run for a while. */
  during(span: Span): Promise<void>;
  /** Starts the load, as soon as the gateway serves the volume. */
  startLoad(): Promise<void>;
  /** A second load of the same history through another gateway. */
  secondLoad(): Load;
  startLoadOf(load: Load, at: Station): Promise<void>;
  /** Waits for what is in flight. */
  stopLoad(): Promise<void>;
  /** Waits until `what` holds, and says so when it never does. */
  await(what: string, holds: () => boolean | Promise<boolean>): Promise<void>;
  problem(text: string): void;
}

/** Milliseconds of a fault. */
export const KILLED_MS: Span = { least: 50, most: 1800 };
/** Milliseconds of load before and after one. */
export const LOAD_MS: Span = { least: 100, most: 800 };
export const AWAY_MS_LEAST = 500;

export function awaySpan({ awayMsMax }: Stage): Span {
  return { least: Math.min(AWAY_MS_LEAST, awayMsMax - 1), most: awayMsMax };
}
