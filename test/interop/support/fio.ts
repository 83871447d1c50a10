/** fio as a verifying client: random writes of whole and broken blocks with flushes between, all read back at the end. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { check } from "./process.js";

export interface FioJobResult {
  readonly error: number;
  readonly read: { readonly total_ios: number };
  readonly write: { readonly total_ios: number };
}

export interface VerifiedLoad {
  /** Connections; each has a part of the volume to itself. */
  readonly jobs: number;
  /** MiB of a job's part of the volume. */
  readonly partMib: number;
  /** MiB that a job writes. */
  readonly writtenMib: number;
}

/** Runs it against the volume at `uri`, with its files in `folder`; throws when fio finds a block that it did not write. */
export async function verifiedLoad(
  uri: string,
  folder: string,
  load: VerifiedLoad,
): Promise<readonly FioJobResult[]> {
  const job = `[global]
ioengine=nbd
uri=${uri}
rw=randwrite
bssplit=4k/50:512/10:16k/20:7k/10:128k/10
blockalign=512
iodepth=16
size=${load.partMib}m
offset_increment=${load.partMib}m
io_size=${load.writtenMib}m
fsync=64
verify=crc32c
verify_state_save=0
verify_fatal=1
serialize_overlap=1
randrepeat=0
[writer]
numjobs=${load.jobs}
`;
  writeFileSync(join(folder, "job.fio"), job);
  const text = await check("fio", ["--output-format=json", "job.fio"], { cwd: folder });
  return (JSON.parse(text.slice(text.indexOf("{"))) as { readonly jobs: readonly FioJobResult[] }).jobs;
}
