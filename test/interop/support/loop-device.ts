/**
 * A volume as a block device of this machine without the nbd kernel module: nbdfuse shows it as a file, a loop
 * device makes a disk of the file. fsync becomes FLUSH, fallocate becomes TRIM and WRITE_ZEROES.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { check, Program, run } from "./process.js";
import { scratchDirectory } from "./scratch.js";
import { pause } from "./server.js";

export const LOOP_NEEDS = {
  root: true,
  commands: ["nbdfuse", "losetup", "umount"],
  paths: ["/dev/fuse", "/dev/loop-control"],
};

export class LoopDevice {
  readonly folder: string;
  readonly mountPoint: string;
  readonly device: string;
  readonly #fuse: Program;
  #mounted = false;

  private constructor(folder: string, fuse: Program, device: string) {
    this.folder = folder;
    this.mountPoint = join(folder, "fs");
    this.device = device;
    this.#fuse = fuse;
    mkdirSync(this.mountPoint);
  }

  static async attach(uri: string): Promise<LoopDevice> {
    const folder = scratchDirectory();
    const mount = join(folder, "fuse");
    mkdirSync(mount);
    const file = join(mount, "disk");
    const fuse = new Program("nbdfuse", [file, uri]);
    while ((await run("test", ["-f", file])).code !== 0) {
      if (!fuse.isRunning) throw new Error(`nbdfuse ended: ${fuse.stderr}`);
      await pause(20);
    }
    // Sectors of 4 KiB, as the volume prefers them; not every kernel takes them for every file.
    const device = (await check("losetup", ["--find", "--show", file])).trim();
    return new LoopDevice(folder, fuse, device);
  }

  async mount(type: string): Promise<void> {
    await check("mount", ["-t", type, this.device, this.mountPoint]);
    this.#mounted = true;
  }

  async unmount(): Promise<void> {
    await check("umount", [this.mountPoint]);
    this.#mounted = false;
  }

  async detach(): Promise<void> {
    if (this.#mounted) await run("umount", [this.mountPoint]);
    await run("losetup", ["--detach", this.device]);
    await run("umount", [join(this.folder, "fuse")]);
    await this.#fuse.end("SIGTERM");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
