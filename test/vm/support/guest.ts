/**
 * A guest with Debian's kernel under QEMU's software emulation: it boots the image of scripts/vm/build, runs one
 * shell script and ends. The host is 10.0.2.2 for it.
 */
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { check, Program, type RunResult } from "../../interop/support/process.js";
import type { Requirements } from "../../interop/support/requirements.js";
import { scratchDirectory } from "../../interop/support/scratch.js";

const ROOT = new URL("../../../", import.meta.url).pathname.replace(/dist\/$/, "");
const IMAGE = join(process.env["LAMINA_CACHE"] ?? join(ROOT, ".cache"), "vm");

const MEMORY_MIB = 768;

/**
 * A guest that has not ended by then never will: the longest of the suite takes three minutes. Below the bound of a test
 * file (.taprc), which would say nothing of what the guest said.
 */
const GUEST_SECONDS_MAX = Number(process.env["LAMINA_GUEST_SECONDS_MAX"] ?? 720);
/** Lines of the console that say why. */
const LAST_LINES = 40;

export const GUEST_NEEDS: Requirements = {
  commands: ["qemu-system-x86_64", "cpio"],
  // ./scripts/test builds them.
  paths: [join(IMAGE, "vmlinuz"), join(IMAGE, "base.cpio")],
};

export interface GuestOptions {
  /** Shell script, run with -e -x. */
  readonly job: string;
  /** A disk of the guest (/dev/vda): anything that QEMU's block layer opens. */
  readonly disk?: string;
  /** Further arguments of QEMU. */
  readonly qemu?: readonly string[];
  /**
   * Further files of the guest: paths of this machine by their paths in the guest. /bin, /sbin and /lib are links
   * into /usr there.
   */
  readonly files?: Readonly<Record<string, string>>;
}

export interface GuestResult {
  /** Exit code of the job, or null when the guest did not say one. */
  readonly code: number | null;
  /** All that came over the console. */
  readonly console: string;
  /** Kernel messages about failed I/O and the like; none are expected. */
  readonly kernelComplaints: readonly string[];
}

export class Guest {
  readonly program: Program;
  readonly #folder: string;
  readonly #bound: NodeJS.Timeout;
  #isLate = false;

  private constructor(program: Program, folder: string) {
    this.program = program;
    this.#folder = folder;
    this.#bound = setTimeout(() => {
      this.#isLate = true;
      program.child.kill("SIGKILL");
    }, GUEST_SECONDS_MAX * 1000);
  }

  static async boot(options: GuestOptions): Promise<Guest> {
    const folder = scratchDirectory();
    const initrd = join(folder, "initrd");
    copyFileSync(join(IMAGE, "base.cpio"), initrd);
    // The kernel unpacks archive after archive.
    appendFileSync(initrd, await jobArchive(folder, options));
    return new Guest(
      new Program("qemu-system-x86_64", [...qemuArguments(initrd, options.disk), ...(options.qemu ?? [])]),
      folder,
    );
  }

  /** Waits until the guest has powered itself off. Throws with its last words when it does not within its bound. */
  async ended(): Promise<GuestResult> {
    const result: RunResult = await this.program.ended;
    clearTimeout(this.#bound);
    const console = result.stdout.replaceAll("\r", "") + result.stderr;
    if (this.#isLate) {
      const last = console.trimEnd().split("\n").slice(-LAST_LINES);
      throw new Error(
        `the guest had ${GUEST_SECONDS_MAX} s to end; its console said last:\n${last.join("\n")}`,
      );
    }
    const exit = /^GUEST EXIT (\d+)$/m.exec(console);
    return {
      code: exit === null ? null : Number(exit[1]),
      console,
      kernelComplaints: console.match(/^GUEST KERNEL .*$/gm) ?? [],
    };
  }

  async dispose(): Promise<void> {
    clearTimeout(this.#bound);
    await this.program.end("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function jobArchive(folder: string, options: GuestOptions): Promise<Buffer> {
  const content = join(folder, "job-content");
  mkdirSync(content);
  writeFileSync(join(content, "job"), options.job);
  const names = new Set(["job"]);
  for (const [inGuest, here] of Object.entries(options.files ?? {})) {
    mkdirSync(join(content, dirname(inGuest)), { recursive: true });
    copyFileSync(here, join(content, inGuest));
    // A folder goes before what is in it.
    const parts = inGuest.split("/").filter((part) => part !== "");
    for (let depth = 1; depth < parts.length; depth++) names.add(parts.slice(0, depth).join("/"));
    names.add(parts.join("/"));
  }
  const archive = join(folder, "job.cpio");
  await check("cpio", ["--quiet", "--create", "--format=newc", "--file", archive], {
    cwd: content,
    input: `${[...names].join("\n")}\n`,
  });
  return readFileSync(archive);
}

function qemuArguments(initrd: string, disk: string | undefined): string[] {
  const args = ["-accel", "tcg", "-cpu", "max", "-m", String(MEMORY_MIB), "-nodefaults", "-display", "none"];
  args.push("-serial", "stdio", "-monitor", "none");
  args.push("-kernel", join(IMAGE, "vmlinuz"), "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1");
  args.push("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=");
  if (disk !== undefined) {
    args.push("-drive", `file=${disk},if=none,id=disk,format=raw,cache=none,discard=unmap`);
    args.push("-device", "virtio-blk-pci,drive=disk");
  }
  return args;
}
