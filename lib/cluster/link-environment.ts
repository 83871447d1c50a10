/** What the ends of links take of the process that they are in. */
import type { LinkEnvironment } from "../replica/api.js";
import type { Packing } from "../replica/packing.js";
import type { Engine } from "../uring/api.js";

/** Without `packing` a link's greeting leaves it out, and nothing on it is packed. */
export function linkEnvironment(engine: Engine, packing: Packing | null): LinkEnvironment {
  const { pool, clock, checksums } = engine;
  const plain = { pool, clock, ticker: engine, checksums };
  return packing === null ? plain : { ...plain, packing };
}
