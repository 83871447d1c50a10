/** What all connections of one thread share. */
import type { Clock, Ticker } from "../core/clock.js";
import type { Pool } from "../core/pool.js";
import type { CommandPool } from "./command.js";
import type { Counters } from "./counters.js";
import type { MapGate } from "./map-gate.js";
import type { Memory } from "./memory.js";
import type { SendScratch } from "./outlet.js";

export interface GatewayParts {
  readonly pool: Pool;
  readonly memory: Memory;
  readonly commands: CommandPool;
  readonly maps: MapGate;
  readonly scratch: SendScratch;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly ticker: Ticker;
}
