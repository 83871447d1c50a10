/** The same test on both engines, and small helpers around their interfaces. */
import type { TAP, Test } from "tap";
import type { Disk } from "../../../../lib/core/disk.js";
import { LaminaError } from "../../../../lib/core/errors.js";
import { MIB } from "../../../../lib/core/limits.js";
import type { Engine, EngineKind } from "../../../../lib/uring/api.js";
import { openEngine } from "../../../../lib/uring/engine.js";

export const KINDS: readonly EngineKind[] = ["ring", "threads"];

/** Why the ring cannot be tested here; null when it can. */
export function ringRefusal(): string | null {
  try {
    const engine = openEngine({ kind: "ring", poolBytes: MIB });
    void engine.close();
    return null;
  } catch (error) {
    if (error instanceof LaminaError && error.code === "RING_REFUSED") return error.message;
    throw error;
  }
}

/** Runs `body` on a fresh engine of each kind. The engine is closed afterwards; what it opened must be by then. */
export function onEachEngine(
  t: TAP,
  name: string,
  body: (t: Test, engine: Engine) => Promise<void>,
  skip?: string | false,
): void {
  const refusal = ringRefusal();
  for (const kind of KINDS) {
    const reason = kind === "ring" && refusal !== null ? refusal : skip;
    const options = typeof reason === "string" ? { skip: reason } : {};
    t.test(`${name} (${kind})`, options, async (sub) => {
      const engine = openEngine({ kind, poolBytes: 16 * MIB });
      await body(sub, engine);
      await engine.close();
    });
  }
}

type Start = (listener: { diskDone(tag: number, result: number): void }) => void;

/** Result of one disk request; fails if it completed inside the call that asked for it. */
export function diskResult(start: Start): Promise<number> {
  return new Promise((resolve, reject) => {
    let asking = true;
    start({
      diskDone(_tag, result) {
        if (asking) reject(new Error("completed inside the call that asked"));
        else resolve(result);
      },
    });
    asking = false;
  });
}

export function diskRead(disk: Disk, offset: number, memory: number, length: number): Promise<number> {
  return diskResult((listener) => disk.read(offset, memory, length, listener, 0));
}

export function diskWrite(disk: Disk, offset: number, memory: number, length: number): Promise<number> {
  return diskResult((listener) => disk.write(offset, memory, length, listener, 0));
}

export function diskZero(disk: Disk, offset: number, length: number): Promise<number> {
  return diskResult((listener) => disk.zero(offset, length, listener, 0));
}

export function diskSync(disk: Disk): Promise<number> {
  return diskResult((listener) => disk.sync(listener, 0));
}

/** Bytes that differ from place to place, the same for the same seed. */
export function fillPattern(bytes: Uint8Array, seed: number): void {
  let state = seed >>> 0;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
}
