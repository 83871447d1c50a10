/**
 * A block device on which chosen writes take seconds: those whose data hold a marker. All others are as fast as a
 * script can be. nbdkit runs the script, nbdfuse makes a file of it, a loop device makes a disk of that.
 */
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LOOP_NEEDS, LoopDevice } from "../../interop/support/loop-device.js";
import { Program } from "../../interop/support/process.js";
import { scratchDirectory } from "../../interop/support/scratch.js";
import { freePort, pause } from "../../interop/support/server.js";

export const SLUGGISH_NEEDS = { ...LOOP_NEEDS, commands: [...LOOP_NEEDS.commands, "nbdkit", "fallocate"] };

/** Data that hold this are written late. */
export const MARKER = "WRITTEN-LATE";
export const DELAY_SECONDS = 3;

/** Arguments of nbdkit's eval plugin: $3 is the length, $4 the offset. */
function script(file: string): string[] {
  const write = [
    `data=$(mktemp ${file}.XXXXXX)`,
    "cat >$data",
    `if grep -aq ${MARKER} $data; then sleep ${DELAY_SECONDS}; fi`,
    `dd if=$data of=${file} oflag=seek_bytes seek=$4 conv=notrunc bs=1M status=none`,
    "rm $data",
  ];
  return [
    "thread_model=echo parallel",
    `get_size=stat -c %s ${file}`,
    `pread=dd if=${file} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M status=none`,
    "can_write=exit 0",
    `pwrite=${write.join("; ")}`,
    "can_flush=exit 0",
    `flush=sync ${file}`,
    "can_trim=exit 0",
    `trim=fallocate --punch-hole --offset $4 --length $3 ${file}`,
    "can_zero=exit 0",
    `zero=fallocate --punch-hole --offset $4 --length $3 ${file}`,
  ];
}

export class SluggishDisk {
  readonly device: string;
  readonly #folder: string;
  readonly #nbdkit: Program;
  readonly #loop: LoopDevice;

  private constructor(folder: string, nbdkit: Program, loop: LoopDevice) {
    this.#folder = folder;
    this.#nbdkit = nbdkit;
    this.#loop = loop;
    this.device = loop.device;
  }

  static async make(sizeBytes: number): Promise<SluggishDisk> {
    const folder = scratchDirectory();
    const file = join(folder, "disk");
    writeFileSync(file, "");
    truncateSync(file, sizeBytes);
    const port = await freePort();
    const nbdkit = new Program("nbdkit", [
      "-f",
      "-i",
      "127.0.0.1",
      "-p",
      String(port),
      "eval",
      ...script(file),
    ]);
    await pause(300);
    return new SluggishDisk(folder, nbdkit, await LoopDevice.attach(`nbd://127.0.0.1:${port}`));
  }

  async dispose(): Promise<void> {
    await this.#loop.detach();
    await this.#nbdkit.end("SIGTERM");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
