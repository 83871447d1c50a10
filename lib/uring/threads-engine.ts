/** placeholder until the real one lands in the next commit */
import type { Addon } from "./addon.js";
import type { EngineOptions } from "./api.js";
import { RingEngine } from "./ring-engine.js";

export class ThreadsEngine extends RingEngine {
  constructor(addon: Addon, options: EngineOptions, _reason: string | null) {
    super(addon, options);
  }
}
