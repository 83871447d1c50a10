/** lamina volume export and import: images in and out of volumes, over NBD. */
import { existsSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { formatNbdUri, parseNbdUri } from "nbd-protocol-ts";
import type { Argv } from "yargs";
import type { StatusView, VolumeDetailView } from "../../admin/index.js";
import { LaminaError } from "../../core/errors.js";
import { VOLUME_SIZE_GRAIN } from "../../core/limits.js";
import { clientOf, type GlobalArguments, withTarget } from "../arguments.js";
import { type AdminClient, ApiError } from "../client.js";
import { exportRaw } from "../copy/export.js";
import { importRaw } from "../copy/import.js";
import { NbdCopyClient } from "../copy/nbd-client.js";
import { exportQcow2, imageSize, importQcow2, QCOW2_MAGIC, type QemuVolume } from "../copy/qemu-img.js";
import { type ClientTls, readClientTls, type TlsArguments } from "../copy/tls.js";
import { print, printJson } from "../output.js";
import { Progress } from "../progress.js";
import { formatBytes } from "../size.js";
import type { Run } from "./command.js";
import { checkName, volumePath } from "./volume-names.js";

const FORMATS = ["raw", "qcow2"] as const;
type Format = (typeof FORMATS)[number];

export function registerTransfer(yargs: Argv<GlobalArguments>, run: Run): void {
  registerExport(yargs, run);
  registerImport(yargs, run);
}

/** Names of libnbd's parameters. */
function withTls<T>(yargs: Argv<T>): Argv<T & TlsArguments> {
  const text = (describe: string) => ({ describe, type: "string", requiresArg: true }) as const;
  return yargs
    .option(
      "tls-certificates",
      text("directory of ca-cert.pem, client-cert.pem and client-key.pem: TLS is required"),
    )
    .option("tls-psk-file", text("file of a pre-shared key, IDENTITY:HEXKEY: TLS is required"))
    .option("tls-username", text("identity in that file, if it has several")) as unknown as Argv<
    T & TlsArguments
  >;
}

function registerExport(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "export <name> <file>",
    "copy a volume into an image file; holes stay holes",
    (y) =>
      withTls(withTarget(y))
        .positional("name", { describe: "volume", type: "string", demandOption: true })
        .positional("file", { describe: "image to write", type: "string", demandOption: true })
        .option("format", { describe: "format of the image", choices: FORMATS, default: "raw" as Format })
        .option("force", { describe: "overwrite the file", type: "boolean", default: false })
        .example("lamina volume export disk1 disk1.img", "a sparse raw image")
        .example("lamina volume export disk1 disk1.img --tls-certificates ~/tls", "from a server with TLS"),
    run(async (args) => {
      const { name, file, format, force, json } = args;
      checkName(name);
      const tls = readClientTls(args);
      const admin = clientOf(args);
      const { size } = await admin.ask<VolumeDetailView>("GET", volumePath(name));
      if (existsSync(file) && !force) throw new LaminaError("FILE_EXISTS", { path: file });
      const volume = await volumeAt(admin, name, tls);
      if (format === "qcow2") await exportQcow2(volume, file, showsProgress(json));
      else {
        const progress = bar("exporting", size, json);
        const copy = (nbd: NbdCopyClient): Promise<void> =>
          guardFile(file, () => exportRaw(nbd, file, progress));
        await withNbd(volume, copy).finally(() => progress.end());
      }
      if (json) printJson({ volume: name, file, format, size });
      else print(`exported volume ${name} (${formatBytes(size)}) to ${file}`);
      return 0;
    }),
  );
}

function registerImport(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "import <name> <file>",
    "copy an image file into a volume, which is created if there is none; zeros stay holes",
    (y) =>
      withTls(withTarget(y))
        .positional("name", { describe: "volume", type: "string", demandOption: true })
        .positional("file", { describe: "image to read", type: "string", demandOption: true })
        .option("format", { describe: "format of the image (default raw)", choices: FORMATS })
        .example("lamina volume import disk1 disk1.img", "a raw image")
        .example("lamina volume import vm1 vm1.qcow2 --format qcow2", "through qemu-img"),
    run(async (args) => {
      const { name, file, json } = args;
      checkName(name);
      const tls = readClientTls(args);
      const source = await guardFile(file, () => open(file, "r"));
      try {
        const image = await inspect(source, file, args.format);
        const made = await importImage(clientOf(args), { name, file, source, image, tls, json });
        if (json) printJson({ volume: name, file, format: image.format, size: image.size, created: made });
        else print(`imported ${file} (${formatBytes(image.size)}) into ${made ? "new " : ""}volume ${name}`);
      } finally {
        await source.close();
      }
      return 0;
    }),
  );
}

interface Image {
  readonly format: Format;
  readonly size: number;
}

/**
 * A raw image is never taken for another format by its content unasked: a guest that writes a qcow2 header
 * onto its disk could otherwise name any file of the host as its backing file.
 */
async function inspect(source: FileHandle, path: string, format: Format | undefined): Promise<Image> {
  if (format === "qcow2") return { format, size: await imageSize(path) };
  const facts = await source.stat();
  if (facts.isDirectory()) throw new LaminaError("FILE_UNUSABLE", { path, what: "it is a directory" });
  const size = facts.isBlockDevice() ? await deviceSize(source) : facts.size;
  if (size === 0) throw new LaminaError("FILE_UNUSABLE", { path, what: "it is empty" });
  if (format === undefined) {
    const magic = Buffer.alloc(QCOW2_MAGIC.length);
    await source.read(magic, 0, magic.length, 0);
    if (magic.equals(QCOW2_MAGIC)) {
      const what = `${path} looks like a qcow2 image`;
      throw new LaminaError("ARGUMENT_INVALID", {
        what,
        hint: "say --format qcow2, or --format raw to copy it as it is",
      });
    }
  }
  return { format: "raw", size };
}

/** A block device has no size of its own in stat: its last readable byte tells. */
async function deviceSize(source: FileHandle): Promise<number> {
  const byte = Buffer.alloc(1);
  let low = 0;
  let high = 2 ** 52;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const { bytesRead } = await source.read(byte, 0, 1, middle).catch(() => ({ bytesRead: 0 }));
    if (bytesRead === 1) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface Import {
  readonly name: string;
  readonly file: string;
  readonly source: FileHandle;
  readonly image: Image;
  readonly tls: ClientTls | null;
  readonly json: boolean;
}

/** Returns whether the volume was made. One that was is removed again when the copy fails. */
async function importImage(admin: AdminClient, wanted: Import): Promise<boolean> {
  const { name, file, source, image, tls, json } = wanted;
  const made = await takeVolume(admin, name, image.size);
  try {
    const volume = await volumeAt(admin, name, tls);
    if (image.format === "qcow2") await importQcow2(file, volume, made, showsProgress(json));
    else {
      const progress = bar("importing", image.size, json);
      await withNbd(volume, (nbd) =>
        importRaw(nbd, source, image.size, made, progress).finally(() => progress.end()),
      );
    }
  } catch (error) {
    if (made) await removeQuietly(admin, name);
    throw error;
  }
  return made;
}

async function takeVolume(admin: AdminClient, name: string, size: number): Promise<boolean> {
  const wanted = Math.ceil(size / VOLUME_SIZE_GRAIN) * VOLUME_SIZE_GRAIN;
  try {
    const { size: limit } = await admin.ask<VolumeDetailView>("GET", volumePath(name));
    if (size > limit) throw new LaminaError("IMAGE_TOO_LARGE", { name, size, limit, wanted });
    return false;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "LAMINA_VOLUME_UNKNOWN") throw error;
  }
  await admin.ask("POST", "/v1/volumes", { name, size: wanted });
  return true;
}

/** The connection of the failed copy may take a moment to go. */
const REMOVE_TRIES = 20;
const REMOVE_PAUSE_MS = 100;

async function removeQuietly(admin: AdminClient, name: string): Promise<void> {
  for (let tries = 0; tries < REMOVE_TRIES; tries++) {
    try {
      await admin.ask("DELETE", volumePath(name));
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, REMOVE_PAUSE_MS));
    }
  }
}

/** A host of these listens on every address. */
const EVERY_ADDRESS: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** Where the server serves a volume, as it is reached from here. */
async function volumeAt(admin: AdminClient, name: string, tls: ClientTls | null): Promise<QemuVolume> {
  const { listeners } = await admin.ask<StatusView>("GET", "/v1/status");
  const uris = listeners.filter((uri) => uri.startsWith("nbd"));
  const first = tls === null ? uris.find((uri) => !uri.startsWith("nbds")) : uris[0];
  if (first === undefined && uris.length > 0) {
    throw new LaminaError("TRANSFER_NEEDS_TLS", { server: admin.name });
  }
  if (first === undefined) throw new LaminaError("TRANSFER_NO_LISTENER", { server: admin.name });
  const uri = { ...parseNbdUri(first), exportName: name };
  const { endpoint } = uri;
  if (endpoint.kind !== "tcp") return { uri, tls };
  const here = EVERY_ADDRESS[endpoint.host];
  const host = here === undefined ? endpoint.host : (admin.host ?? here);
  return { uri: { ...uri, endpoint: { ...endpoint, host } }, tls };
}

async function withNbd({ uri, tls }: QemuVolume, work: (nbd: NbdCopyClient) => Promise<void>): Promise<void> {
  let nbd: NbdCopyClient;
  try {
    nbd = await NbdCopyClient.connect(uri.endpoint, uri.exportName, tls);
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    throw new LaminaError("CONNECT_REFUSED", { address: formatNbdUri(uri), what }, error);
  }
  try {
    await work(nbd);
  } catch (error) {
    if (error instanceof LaminaError) throw error;
    const what = error instanceof Error ? error.message : String(error);
    throw new LaminaError("TRANSFER_FAILED", { offset: 0, what }, error);
  } finally {
    nbd.close();
  }
}

/** What the file system says about a file, as one of our errors. */
async function guardFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { syscall, code, message } = error as NodeJS.ErrnoException;
    if (error instanceof LaminaError || syscall === undefined) throw error;
    const what = code === "ENOENT" ? "it does not exist" : (message.split(": ")[1]?.split(",")[0] ?? message);
    throw new LaminaError("FILE_UNUSABLE", { path, what }, error);
  }
}

function bar(label: string, total: number, json: boolean): Progress {
  return new Progress(label, total, json);
}

function showsProgress(json: boolean): boolean {
  return !json && process.stderr.isTTY === true;
}
