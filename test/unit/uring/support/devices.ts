/** Devices made for tests: loop devices, and one whose writes take their time. All need root. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Test } from "tap";

/** Why tests that need root and these tools are skipped; false when they can run. */
export function lacks(...tools: readonly string[]): string | false {
  if (process.getuid?.() !== 0) return "needs root";
  const missing = tools.filter((tool) => spawnSync("which", [tool]).status !== 0);
  if (missing.length > 0) return `needs ${missing.join(", ")}`;
  if (tools.includes("losetup") && spawnSync("losetup", ["-f"]).status !== 0) return "needs loop devices";
  return false;
}

export function scratchDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), "lamina-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A loop device over `file`; gone with the test. */
export function loopDevice(t: Test, file: string): string {
  const device = execFileSync("losetup", ["-f", "--show", file]).toString().trim();
  t.teardown(() => {
    execFileSync("losetup", ["-d", device]);
  });
  return device;
}

export function sparseFile(path: string, bytes: number): string {
  writeFileSync(path, "");
  truncateSync(path, bytes);
  return path;
}

export function mounted(t: Test, type: string, source: string, options: readonly string[] = []): string {
  const directory = join(scratchDirectory(t), "mount");
  mkdirSync(directory);
  execFileSync("mount", ["-t", type, ...options, source, directory]);
  t.teardown(() => {
    execFileSync("umount", ["--lazy", directory]);
  });
  return directory;
}

/** A loop device over 16 MiB of memory in a server that delays every write by `seconds`. */
export async function slowDevice(t: Test, seconds: number): Promise<string> {
  const directory = scratchDirectory(t);
  const file = join(directory, "disk");
  writeFileSync(file, "");
  const command = ["nbdkit", "-s", "--filter=delay", "memory", "16M", `wdelay=${seconds}`];
  const fuse: ChildProcess = spawn("nbdfuse", [file, "--command", ...command], { stdio: "ignore" });
  t.teardown(async () => {
    spawnSync("umount", ["--lazy", file]);
    const ended = new Promise((resolve) => fuse.once("exit", resolve));
    if (fuse.exitCode === null) {
      fuse.kill();
      await ended;
    }
  });
  const size = 16 * 1024 * 1024;
  while (Number(spawnSync("stat", ["-c", "%s", file]).stdout.toString()) !== size) {
    if (fuse.exitCode !== null || !existsSync(file)) throw new Error("nbdfuse ended");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return loopDevice(t, file);
}
