/** A small file system of a node's own, in memory, that can be filled up under it. */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { check } from "../../interop/support/process.js";

const FILLER = "filler-";
/** What is left of a full one. */
const LEFT_BYTES = 64 << 10;

export class MemoryDisk {
  readonly path: string;
  #fillers = 0;
  readonly #atExit = (): void => this.#unmount();

  private constructor(path: string) {
    this.path = path;
  }

  static async mount(path: string, mib: number): Promise<MemoryDisk> {
    mkdirSync(path);
    await check("mount", ["-t", "tmpfs", "-o", `size=${mib}M`, "tmpfs", path]);
    const disk = new MemoryDisk(path);
    process.once("exit", disk.#atExit);
    return disk;
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Takes what is free now; what is given back later is free again. */
  async fill(): Promise<void> {
    const { freeBytes } = this;
    if (freeBytes <= LEFT_BYTES) return;
    const filler = join(this.path, `${FILLER}${this.#fillers++}`);
    // The node may have taken some of it meanwhile: then the next call takes what is left.
    await check("fallocate", ["-l", String(freeBytes - LEFT_BYTES), filler]).catch(() => undefined);
  }

  release(): void {
    while (this.#fillers > 0) rmSync(join(this.path, `${FILLER}${--this.#fillers}`), { force: true });
  }

  unmount(): void {
    process.removeListener("exit", this.#atExit);
    this.#unmount();
  }

  #unmount(): void {
    execFileSync("umount", ["--lazy", this.path], { stdio: "ignore" });
  }
}
