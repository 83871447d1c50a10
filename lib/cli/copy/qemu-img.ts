/** Images in other formats than raw, through qemu-img. */
import { type ChildProcess, spawn } from "node:child_process";
import { LaminaError } from "../../core/errors.js";

export const QCOW2_MAGIC: Buffer = Buffer.from([0x51, 0x46, 0x49, 0xfb]);

/** Virtual size of a qcow2 image in bytes. */
export async function imageSize(path: string): Promise<number> {
  const answer = await qemuImg(["info", "--output=json", "-f", "qcow2", path]);
  const size = (JSON.parse(answer) as Record<string, unknown>)["virtual-size"];
  if (typeof size !== "number")
    throw new LaminaError("FILE_UNUSABLE", { path, what: "qemu-img tells no size of it" });
  return size;
}

/** `blank`: the volume is known to read as zeros. */
export async function importQcow2(
  path: string,
  uri: string,
  blank: boolean,
  showProgress: boolean,
): Promise<void> {
  const zero = blank ? ["--target-is-zero"] : [];
  const bar = showProgress ? ["-p"] : [];
  await qemuImg(["convert", ...bar, "-n", ...zero, "-W", "-f", "qcow2", "-O", "raw", path, uri]);
}

export async function exportQcow2(uri: string, path: string, showProgress: boolean): Promise<void> {
  const bar = showProgress ? ["-p"] : [];
  await qemuImg(["convert", ...bar, "-f", "raw", "-O", "qcow2", uri, path]);
}

/** Its standard output. Throws PROGRAM_MISSING or PROGRAM_FAILED with its own words. */
async function qemuImg(args: readonly string[]): Promise<string> {
  const program = "qemu-img";
  const child: ChildProcess = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const bar = args.includes("-p");
  let output = "";
  let complaint = "";
  child.stdout?.on("data", (part: Buffer) => {
    if (bar) process.stderr.write(part);
    else output += part.toString("utf8");
  });
  child.stderr?.on("data", (part: Buffer) => {
    complaint = (complaint + part.toString("utf8")).slice(-2000);
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      const missing = error.code === "ENOENT";
      reject(
        missing
          ? new LaminaError("PROGRAM_MISSING", { program, package: "qemu-utils" })
          : new LaminaError("PROGRAM_FAILED", { program, what: error.message }, error),
      );
    });
    child.once("close", (status) => resolve(status ?? 1));
  });
  if (code !== 0) {
    const what = complaint.trim().replace(/\s*\n\s*/g, "; ") || `exit code ${code}`;
    throw new LaminaError("PROGRAM_FAILED", { program, what });
  }
  return output;
}
