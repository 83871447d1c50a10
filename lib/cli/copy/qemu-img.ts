/** Images in other formats than raw, through qemu-img. */
import { type ChildProcess, spawn } from "node:child_process";
import { formatNbdUri, type NbdUri } from "nbd-protocol-ts";
import { LaminaError } from "../../core/errors.js";
import { type ClientTls, QEMU_TLS_ID, qemuValue, withQemuObject } from "./tls.js";

export const QCOW2_MAGIC: Buffer = Buffer.from([0x51, 0x46, 0x49, 0xfb]);

/** Virtual size of a qcow2 image in bytes. */
export async function imageSize(path: string): Promise<number> {
  const answer = await qemuImg(["info", "--output=json", "-f", "qcow2", path]);
  const size = (JSON.parse(answer) as Record<string, unknown>)["virtual-size"];
  if (typeof size !== "number")
    throw new LaminaError("FILE_UNUSABLE", { path, what: "qemu-img tells no size of it" });
  return size;
}

/** A volume that is read or written, and how it is reached. */
export interface QemuVolume {
  readonly uri: NbdUri;
  readonly tls: ClientTls | null;
}

/** `blank`: the volume is known to read as zeros. */
export async function importQcow2(
  path: string,
  volume: QemuVolume,
  blank: boolean,
  showProgress: boolean,
): Promise<void> {
  const zero = blank ? ["--target-is-zero"] : [];
  const bar = showProgress ? ["-p"] : [];
  const common = ["convert", ...bar, "-n", ...zero, "-W"];
  const { uri, tls } = volume;
  if (tls === null) {
    await qemuImg([...common, "-f", "qcow2", "-O", "raw", path, formatNbdUri(uri)]);
    return;
  }
  // With options of the target, those of the source are options as well.
  const source = `driver=qcow2,file.driver=file,file.filename=${qemuValue(path)}`;
  await withQemuObject(tls, (object) =>
    qemuImg([
      ...[...common, "--object", object, "--image-opts", "--target-image-opts"],
      ...[source, nodeOf(uri)],
    ]),
  );
}

export async function exportQcow2(volume: QemuVolume, path: string, showProgress: boolean): Promise<void> {
  const bar = showProgress ? ["-p"] : [];
  const { uri, tls } = volume;
  if (tls === null) {
    await qemuImg(["convert", ...bar, "-f", "raw", "-O", "qcow2", formatNbdUri(uri), path]);
    return;
  }
  await withQemuObject(tls, (object) =>
    qemuImg(["convert", ...bar, "--object", object, "--image-opts", "-O", "qcow2", nodeOf(uri), path]),
  );
}

/** The volume as a node of QEMU's over TLS. */
function nodeOf({ endpoint, exportName }: NbdUri): string {
  const server =
    endpoint.kind === "unix"
      ? ["server.type=unix", `server.path=${qemuValue(endpoint.path)}`, "tls-hostname=localhost"]
      : ["server.type=inet", `server.host=${qemuValue(endpoint.host)}`, `server.port=${endpoint.port}`];
  const nbd = ["driver=nbd", ...server, `export=${qemuValue(exportName)}`, `tls-creds=${QEMU_TLS_ID}`];
  return ["driver=raw", ...nbd.map((option) => `file.${option}`)].join(",");
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
