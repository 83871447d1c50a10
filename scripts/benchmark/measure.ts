/** One measurement: fio's nbd engine against one server. */
import { check } from "../../test/interop/support/process.js";
import { cpuTime, residentBytes, writtenBytes } from "./cpu-time.js";
import { MIX_READ_PERCENT, type Row } from "./rows.js";
import type { BenchServer } from "./servers.js";

export interface Sample {
  readonly iops: number;
  readonly megabytesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  /** Server CPU per request. */
  readonly userUs: number;
  readonly systemUs: number;
  /** Memory of the server at the end of the row. */
  readonly residentBytes: number;
  /** Bytes that the server sent towards a device for each byte that the client wrote; null for rows that only read. */
  readonly writtenPerByte: number | null;
}

interface FioSide {
  readonly total_ios: number;
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

interface FioReport {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: FioSide;
    readonly write: FioSide;
    readonly mixed?: FioSide;
  }[];
}

function fioArguments(uri: string, row: Row, seconds: number, sizeBytes: number): string[] {
  return [
    "--name=row",
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--rw=${row.rw}`,
    `--bs=${row.blockBytes}`,
    `--iodepth=${row.depth}`,
    `--numjobs=${row.connections}`,
    `--size=${sizeBytes}`,
    "--time_based",
    `--runtime=${seconds}`,
    "--norandommap",
    "--randrepeat=0",
    // Incompressible and never zeros: nobody may save the work.
    "--refill_buffers",
    "--group_reporting",
    "--output-format=json",
    ...(row.flushEvery === undefined ? [] : [`--fsync=${row.flushEvery}`]),
    // Reads and writes of a mixed row are one figure.
    ...(row.rw === "randrw" ? [`--rwmixread=${MIX_READ_PERCENT}`, "--unified_rw_reporting=mixed"] : []),
  ];
}

export async function measure(
  server: BenchServer,
  row: Row,
  seconds: number,
  sizeBytes: number,
): Promise<Sample> {
  const before = cpuTime(server.pid);
  const writtenBefore = writtenBytes(server.pid);
  const text = await check("fio", fioArguments(server.uri, row, seconds, sizeBytes));
  const after = cpuTime(server.pid);
  const written = writtenBytes(server.pid) - writtenBefore;
  const report = JSON.parse(text.slice(text.indexOf("{"))) as FioReport;
  const [job] = report.jobs;
  if (job === undefined || job.error !== 0)
    throw new Error(`fio failed on ${server.name}, ${row.name}: ${text}`);
  const side = job.mixed ?? (job.read.total_ios > job.write.total_ios ? job.read : job.write);
  const writeShare = row.rw === "randrw" ? 1 - MIX_READ_PERCENT / 100 : row.rw.endsWith("write") ? 1 : 0;
  const percentile = (key: string): number => (side.clat_ns.percentile?.[key] ?? 0) / 1000;
  return {
    iops: side.iops,
    megabytesPerSecond: side.bw_bytes / 1e6,
    p50Us: percentile("50.000000"),
    p99Us: percentile("99.000000"),
    p999Us: percentile("99.900000"),
    userUs: (after.userUs - before.userUs) / side.total_ios,
    systemUs: (after.systemUs - before.systemUs) / side.total_ios,
    residentBytes: residentBytes(server.pid),
    writtenPerByte: writeShare === 0 ? null : written / (side.io_bytes * writeShare),
  };
}

/** Writes every block once, so that no row measures allocation. */
export async function prefill(server: BenchServer, sizeBytes: number): Promise<void> {
  const io = ["--ioengine=nbd", `--uri=${server.uri}`, "--rw=write", "--bs=1m", "--iodepth=4"];
  const size = [`--size=${sizeBytes}`, "--end_fsync=1", "--output-format=json"];
  await check("fio", ["--name=prefill", ...io, ...size]);
}
