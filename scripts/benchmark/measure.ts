/** One measurement: a row's client against one server. */
import { fileURLToPath } from "node:url";
import { check } from "../../test/interop/support/process.js";
import { cpuTime, residentBytes, writtenBytes } from "./cpu-time.js";
import type { LoadResult } from "./load/main.js";
import { MIX_READ_PERCENT, type Row } from "./rows.js";
import type { Measured } from "./servers.js";

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
  /** Requests that each of the server's connection threads answered; empty when it has none. */
  readonly threadRequests: readonly number[];
}

/** What a client says about its row. */
export interface Outcome {
  readonly requests: number;
  readonly bytes: number;
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
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

export interface FioCommand {
  readonly command?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface FioOptions extends FioCommand {
  /** Requests per second of all connections together, at random moments; absent: as many as are answered. */
  readonly rate?: number;
}

function fioArguments(
  engine: readonly string[],
  row: Row,
  seconds: number,
  sizeBytes: number,
  rate: number | undefined,
): string[] {
  return [
    "--name=row",
    ...engine,
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
    ...(rate === undefined
      ? []
      : [`--rate_iops=${Math.max(1, Math.round(rate / row.connections))}`, "--rate_process=poisson"]),
    // Reads and writes of a mixed row are one figure.
    ...(row.rw === "randrw" ? [`--rwmixread=${MIX_READ_PERCENT}`, "--unified_rw_reporting=mixed"] : []),
  ];
}

/** fio's engine and what it needs to reach an NBD server. */
export function nbdEngine(uri: string): readonly string[] {
  return ["--ioengine=nbd", `--uri=${uri}`];
}

/** A row by fio; `command` is what starts fio, with what stands before its own arguments. */
export async function runFio(
  engine: readonly string[],
  row: Row,
  seconds: number,
  sizeBytes: number,
  { command = ["fio"], env = {}, rate }: FioOptions = {},
): Promise<Outcome> {
  const [program, ...before] = command;
  const line = [...before, ...fioArguments(engine, row, seconds, sizeBytes, rate)];
  const text = await check(program!, line, { env });
  const report = JSON.parse(text.slice(text.indexOf("{"))) as FioReport;
  const [job] = report.jobs;
  if (job === undefined || job.error !== 0) throw new Error(`fio failed, ${row.name}: ${text}`);
  const side = job.mixed ?? (job.read.total_ios > job.write.total_ios ? job.read : job.write);
  const percentile = (key: string): number => (side.clat_ns.percentile?.[key] ?? 0) / 1000;
  return {
    requests: side.total_ios,
    bytes: side.io_bytes,
    iops: side.iops,
    bytesPerSecond: side.bw_bytes,
    p50Us: percentile("50.000000"),
    p99Us: percentile("99.000000"),
    p999Us: percentile("99.900000"),
  };
}

/** Percent of a row's requests that read. */
function readPercent(row: Row): number {
  if (row.rw === "randrw") return MIX_READ_PERCENT;
  return row.rw.endsWith("read") ? 100 : 0;
}

export async function runOwn(uri: string, row: Row, seconds: number, sizeBytes: number): Promise<Outcome> {
  const load = fileURLToPath(new URL("load/main.js", import.meta.url));
  const shape = [`--block-bytes=${row.blockBytes}`, `--read-percent=${readPercent(row)}`];
  if (row.rw.startsWith("rand")) shape.push("--random");
  if (row.flushEvery !== undefined) shape.push(`--flush-every=${row.flushEvery}`);
  const size = [`--depth=${row.depth}`, `--connections=${row.connections}`, `--size-bytes=${sizeBytes}`];
  const text = await check(process.execPath, [
    load,
    `--uri=${uri}`,
    `--seconds=${seconds}`,
    ...shape,
    ...size,
  ]);
  const result = JSON.parse(text) as LoadResult;
  const perSecond = (count: number): number => count / result.seconds;
  return { ...result, iops: perSecond(result.requests), bytesPerSecond: perSecond(result.bytes) };
}

/** A row by the client that it names. */
export function runClient(
  uri: string,
  row: Row,
  seconds: number,
  sizeBytes: number,
  rate?: number,
): Promise<Outcome> {
  if (row.client === "own") return runOwn(uri, row, seconds, sizeBytes);
  return runFio(nbdEngine(uri), row, seconds, sizeBytes, rate === undefined ? {} : { rate });
}

/** `rate`: requests per second, at random moments; absent: as many as are answered. */
export async function measure(
  server: Measured,
  row: Row,
  seconds: number,
  sizeBytes: number,
  rate?: number,
): Promise<Sample> {
  const before = cpuTime(server.pid);
  const writtenBefore = writtenBytes(server.pid);
  const threadsBefore = await server.threadRequests();
  const outcome = await server.ask(row, seconds, sizeBytes, rate);
  const after = cpuTime(server.pid);
  const written = writtenBytes(server.pid) - writtenBefore;
  const threads = await server.threadRequests();
  const { requests, bytes, iops, p50Us, p99Us, p999Us } = outcome;
  const bytesWritten = bytes * (1 - readPercent(row) / 100);
  return {
    iops,
    megabytesPerSecond: outcome.bytesPerSecond / 1e6,
    p50Us,
    p99Us,
    p999Us,
    userUs: (after.userUs - before.userUs) / requests,
    systemUs: (after.systemUs - before.systemUs) / requests,
    residentBytes: residentBytes(server.pid),
    writtenPerByte: bytesWritten === 0 ? null : written / bytesWritten,
    threadRequests: threads.map((count, i) => count - threadsBefore[i]!),
  };
}

export const PREFILL_DEPTH = 4;

/** Writes every block once, so that no row measures allocation. */
export async function prefill(server: { readonly uri: string }, sizeBytes: number): Promise<void> {
  await prefillBy(nbdEngine(server.uri), sizeBytes);
}

export async function prefillBy(
  engine: readonly string[],
  sizeBytes: number,
  { command = ["fio"], env = {} }: FioCommand = {},
): Promise<void> {
  const [program, ...before] = command;
  const io = [...engine, "--rw=write", "--bs=1m", `--iodepth=${PREFILL_DEPTH}`];
  const size = [`--size=${sizeBytes}`, "--end_fsync=1", "--output-format=json"];
  await check(program!, [...before, "--name=prefill", ...io, ...size], { env });
}
